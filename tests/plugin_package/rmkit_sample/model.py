"""A reward model that needs no folder: fewer capital letters are better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score


class Shouting:
    """The score is minus the number of capital letters."""

    info = ModelInfo("shouting", "explicit", "logit", pointwise=True, fingerprint="rmkit-sample-shouting-1")

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[Score(-float(sum(map(str.isupper, one.text)))) for one in item.completions] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def load(folder: Path | None = None, *, check: bool = True) -> Shouting:
    return Shouting()
