"""What the probes look at: every comparison of two replies to one prompt whose order the benchmark knows, as the
scoring rule says (`Rule.order`).

`margin` is positive where the model agrees, NaN where it gave no score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.scoring.rule import rule_of
from evaluation.suites.items import Answer, Item
from evaluation.suites.suite import Suite
from rmkit.metrics import PairAccuracy


@dataclass(frozen=True, slots=True)
class Compared:
    """Candidate `better` of the item against candidate `worse`."""

    item: Item
    better: int
    worse: int
    margin: float

    @property
    def turned(self) -> bool | None:
        """Whether the row that the comparison comes from has the worse reply first; None where its order says so
        little that the benchmark always has the better one first."""
        return None if not self.item.positions else self.item.positions[self.better] > self.item.positions[self.worse]

    @property
    def texts(self) -> tuple[str, str] | None:
        """The two replies, better first; None where only scores are at hand."""
        if self.item.candidates is None:
            return None
        completions = self.item.candidates.completions
        return completions[self.better].text, completions[self.worse].text


def comparisons(suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer]) -> list[Compared]:
    """The comparisons of every answered item."""
    results = []
    for item in items:
        if item.id in answers:
            answer = answers[item.id]
            pairs = rule_of(suite, item.subset).order(item)
            results += [Compared(item, i, j, _margin(answer, i, j)) for i, j in pairs]
    return results


def in_percent(accuracy: PairAccuracy) -> dict[str, object]:
    """The accuracy as percent, numerator and denominator, with its interval in percent."""
    interval = accuracy.interval
    return {
        "percent": 100 * accuracy.value,
        "numerator": accuracy.numerator,
        "denominator": accuracy.denominator,
        "ties": accuracy.ties,
        "unscored": accuracy.unscored,
        "low": None if interval is None else 100 * interval.low,
        "high": None if interval is None else 100 * interval.high,
    }


def _margin(answer: Answer, better: int, worse: int) -> float:
    if answer.p or not answer.scores:
        return answer.margin if better == 0 else -answer.margin
    return answer.scores[better] - answer.scores[worse]
