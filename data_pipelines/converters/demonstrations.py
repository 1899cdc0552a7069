"""Demonstrations for supervised fine-tuning: of each example the reply to imitate.

    corrected       the corrections, each different one (`corrected`)
    one response    the response; with `min_score` only where every rating of it (of `aspect` where one is named) is at
                    least that
    several         the one that the label prefers; none where several share the first place

`rmkit export --format sft` writes them as conversations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_pipelines.converters import Derived, Example, NotConvertibleError
from warehouse.out.forms import best_response


@dataclass(frozen=True, kw_only=True)
class Config:
    """`corrected`: where a reply was corrected, the corrections are the demonstrations. `min_score`: the lowest rating
    that a reply may have, and it must have one. `aspect`: the rating that counts, all of them by default."""

    corrected: bool = True
    min_score: float | None = None
    aspect: str = ""


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Units of kind single without a label; the response keeps its step ends."""
    edits = dict.fromkeys(vote["edit"] for vote in example["votes"] if vote["edit"])
    if config.corrected and edits:
        places = {text: at for at, text in enumerate(example["responses"])}
        for edit in edits:
            yield Derived(responses=[edit], origins=[places.get(edit)], n_votes=0)
        return
    at = best_response(example)
    if isinstance(at, str):
        raise NotConvertibleError(at)
    if config.min_score is not None:
        scores = [
            score["value"]
            for score in example["scores"] or ()
            if score["response"] == at and config.aspect in ("", score["aspect"])
        ]
        if not scores:
            raise NotConvertibleError("no rating")
        if min(scores) < config.min_score:
            raise NotConvertibleError("rated too low")
    ends = example["step_ends"]
    yield Derived(
        responses=[example["responses"][at]],
        origins=[at],
        step_ends=None if ends is None else [ends[at]],
        n_votes=0,
    )
