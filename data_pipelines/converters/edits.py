"""Pairs from corrections: what a person made of a reply is better than the reply.

One pair for each different correction of a response; several people who made the same one are its votes. A correction
that leaves the reply as it was says that nothing is better, and makes no pair, nor does one of fewer words than `least`
(typing errors). What a correction cost, the edit distance in words, stands in meta (CIPHER, arXiv:2404.15269).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.errors import ConfigError, unknown
from rmkit.ids import parse_messages
from rmkit.memory.edit_distance import edit_distance
from rmkit.types import Completion
from warehouse.write.units import RATER_KINDS


@dataclass(frozen=True, kw_only=True)
class Config:
    rater_kind: Annotated[str, "only corrections by raters of this kind (human, llm ...)"] = ""
    least: Annotated[int, "words that a correction changes at least"] = 1

    def __post_init__(self) -> None:
        if self.least < 0:
            raise ConfigError(f"edits: least counts words, got {self.least}")
        if self.rater_kind and self.rater_kind not in RATER_KINDS:
            raise ConfigError(f"edits: {unknown('rater_kind', self.rater_kind, RATER_KINDS)}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """(correction, original) with p = [1, 0]. Corrections of a unit with several responses do not say of which."""
    edits = [
        vote["edit"] for vote in example["votes"] if vote["edit"] and config.rater_kind in ("", vote["rater_kind"])
    ]
    if not edits:
        raise NotConvertibleError("no correction")
    if len(example["responses"]) != 1:
        raise NotConvertibleError("a correction of one of several responses")
    (original,) = example["responses"]
    changed = Counter(edit for edit in edits if edit != original)
    if not changed:
        raise NotConvertibleError("the correction changes nothing")
    words = {edit: edit_distance(_text(original), _text(edit)) for edit in changed}
    if max(words.values()) < config.least:
        raise NotConvertibleError("the correction changes too few words")
    for edit, n_votes in changed.items():
        if words[edit] >= config.least:
            yield Derived(
                responses=[edit, original],
                origins=[None, 0],
                p=[1.0, 0.0],
                ranks=[0, 1],
                n_votes=n_votes,
                meta={"words_edited": words[edit]},
            )


def _text(messages: str) -> str:
    return Completion(parse_messages(messages)).text
