"""How far verdicts agree with what people said of the same pairs, criterion by criterion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rmkit.data.example import Example
from rmkit.data.pairs import Pair
from rmkit.metrics.accuracy import pair_accuracy
from rmkit.types import Comparison

OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one judge with people on one criterion: `share` of the `n` pairs that both decided or it tied (a tie is half),
    with its interval over prompt families; `unscored` pairs are left out of it."""

    judge: str
    criterion: str
    share: float | None
    low: float | None
    high: float | None
    n: int
    ties: int
    unscored: int


def with_rows(pairs: Sequence[Pair], examples: Sequence[Example]) -> Iterator[tuple[Pair, Example]]:
    """Each pair with the row that it comes from."""
    rows = {example.id: example for example in examples}
    return ((pair, rows[pair.example]) for pair in pairs)


def labels_of(pair: Pair, example: Example) -> dict[str, float]:
    """Criterion -> people's probability that the pair's first response is better by it."""
    labels = {OVERALL: pair.p}
    rated: dict[str, dict[int, float]] = {}
    for score in example.row["scores"] or []:
        if score["value"] is not None and score["aspect"]:
            rated.setdefault(score["aspect"], {})[score["response"] or 0] = float(score["value"])
    for aspect, values in rated.items():
        if pair.i in values and pair.j in values:
            labels[aspect] = (1 + (values[pair.i] > values[pair.j]) - (values[pair.i] < values[pair.j])) / 2
    return labels


def agreement_of(
    name: str, criterion: str, answers: Sequence[Comparison], p: Sequence[float], families: Sequence[int]
) -> Agreement:
    """Of answers [n] with people's p [n] (one half where they say nothing)."""
    margins = [math.nan if one.unscored else one.p_first - 0.5 for one in answers]
    result = pair_accuracy(margins, p, clusters=families, ties="half")
    bounds = result.interval
    return Agreement(
        judge=name,
        criterion=criterion,
        share=result.value if result.n else None,
        low=bounds.low if bounds else None,
        high=bounds.high if bounds else None,
        n=result.n,
        ties=result.ties,
        unscored=result.unscored,
    )


def credits_of(answers: Sequence[Comparison], p: Sequence[float]) -> list[float]:
    """[n] 1 where a verdict is people's, 0.5 for a tie, else 0; NaN where people are undecided.

    Unread verdicts count as wrong, so that nothing is won by not answering.
    """
    return [
        math.nan
        if label == 0.5
        else 0.0
        if one.unscored
        else 0.5
        if one.p_first == 0.5
        else float((one.p_first > 0.5) == (label > 0.5))
        for one, label in zip(answers, p, strict=True)
    ]
