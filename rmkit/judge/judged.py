"""What a judge said of one item: votes by order, and the scores or comparison that they make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from rmkit.generate import Sample
from rmkit.judge.verdict import ParsedVerdict
from rmkit.types import Candidates, Comparison, Score


@dataclass(frozen=True, slots=True)
class Vote:
    """One call. `shown` are the positions of the candidates in the order in which the judge saw them."""

    shown: tuple[int, ...]
    sample: Sample
    reading: ParsedVerdict


@dataclass(frozen=True, slots=True)
class Judged:
    """All votes on one item."""

    candidates: Candidates
    votes: tuple[Vote, ...]

    def by_order(self) -> dict[tuple[int, ...], list[Vote]]:
        """Order shown -> its votes."""
        results: dict[tuple[int, ...], list[Vote]] = {}
        for vote in self.votes:
            results.setdefault(vote.shown, []).append(vote)
        return results

    def comparison(self) -> Comparison:
        """Of a pair that was shown as a pair or a list."""
        first: list[float] = []  # of each order: mean value of candidate 0
        for shown, votes in self.by_order().items():
            read = [dict(zip(shown, vote.reading.values, strict=True)) for vote in votes if not vote.reading.unread]
            if not read:
                return Comparison.failed(_why(votes))
            first.append(fmean(_p_first(values[0], values[1]) for values in read))
        gap = abs(first[0] - first[1]) if len(first) == 2 else None
        return Comparison(p_first=fmean(first), swap_gap=gap, rationale=self.votes[0].sample.text)

    def scores(self) -> list[Score]:
        """One per candidate, each the mean of its readings."""
        values: list[list[float]] = [[] for _ in self.candidates.completions]
        for vote in self.votes:
            if not vote.reading.unread:
                for position, value in zip(vote.shown, vote.reading.values, strict=True):
                    values[position].append(value)
        return [self._score(position, result) for position, result in enumerate(values)]

    def _score(self, position: int, values: Sequence[float]) -> Score:
        votes = [vote for vote in self.votes if position in vote.shown]
        if not values:
            return Score.failed(_why(votes))
        spread = pstdev(values) if len(values) > 1 else None
        return Score(value=fmean(values), std=spread, rationale=votes[0].sample.text)


def _p_first(first: float, second: float) -> float:
    """From two values of one reading: a pair's are probabilities already, a list's only say which is higher."""
    return first if math.isclose(first + second, 1.0) else (1 + (first > second) - (first < second)) / 2


def _why(votes: Sequence[Vote]) -> str:
    reasons = Counter(vote.reading.unread for vote in votes if vote.reading.unread)
    return "; ".join(f"{reason} ({count} of {len(votes)} votes)" for reason, count in reasons.items()) or "not asked"
