"""The length rule: reward = ln(1 + characters). Any model worth its name must beat it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmkit.ids import digest
from rmkit.models.scoring import Item, score_each
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score


class LengthModel:
    """Scores a completion by its length alone."""

    info = ModelInfo(
        name="length", kind="explicit", scale="logit", pointwise=True, fingerprint=digest(["length", "log1p"])[:32]
    )

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return score_each(batch, _log_lengths)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def load(folder: Path | None = None, *, check: bool = True) -> LengthModel:
    """The rule; it has no folder and nothing to check."""
    return LengthModel()


def _log_lengths(items: list[Item]) -> NDArray[np.float64]:
    return np.log1p([len(completion.text) for _, completion in items])
