"""Votes as probabilities (`rmkit.losses.soft_label`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabel(PairObjective):
    trains: ClassVar[tuple[str, ...]] = ("explicit", "implicit")
    keeps_ties: ClassVar[bool] = True
    reviewable: ClassVar[bool] = True

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.soft_label import soft_label

        return soft_label(pairs.first, pairs.second, p_first_B=pairs.p)
