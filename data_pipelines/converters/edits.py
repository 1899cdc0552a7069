"""Pairs from corrections: what a person made of a reply is better than the reply.

One pair for each different correction of a response; several people who made the same one are its votes. A correction
that leaves the reply as it was says that nothing is better, and makes no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.errors import ConfigError, unknown
from warehouse.write.units import RATER_KINDS


@dataclass(frozen=True, kw_only=True)
class Config:
    """`rater_kind`: only corrections by raters of this kind (human, llm ...)."""

    rater_kind: str = ""

    def __post_init__(self) -> None:
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
    for edit, n_votes in changed.items():
        yield Derived(responses=[edit, original], origins=[None, 0], p=[1.0, 0.0], ranks=[0, 1], n_votes=n_votes)
