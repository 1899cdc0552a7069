"""IPO, for policies: margins per token are pulled to 1 / (2 beta) (`rmkit.losses.ipo`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class IPO(PairObjective):
    trains: ClassVar[tuple[str, ...]] = ("implicit",)
    divides: ClassVar[bool] = True

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.ipo import ipo

        return ipo(pairs.chosen, pairs.rejected, beta=state.reward_scale)
