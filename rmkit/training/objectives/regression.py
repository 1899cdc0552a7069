"""Ratings as numbers: squared errors in standard deviations of the training ratings (`rmkit.losses.regression`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rmkit.models.transformer.rating_head import HeadKind
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.ratings import RatingObjective, Scales, Values

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression(RatingObjective):
    head_kind: ClassVar[HeadKind] = "regression"

    def scales(self, values: Values) -> Scales:
        mean, std = zip(*map(_moments, values.values()), strict=True)
        return {"mean": mean, "std": std}

    def rating_losses(self, output_KA: Tensor, rating_KA: Tensor, state: RunState) -> Tensor:
        from rmkit.losses.regression import regression

        assert state.head is not None
        target_KA = (rating_KA - output_KA.new_tensor(state.head.mean)) / output_KA.new_tensor(state.head.std)
        return regression(output_KA, target_BA=target_KA)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
