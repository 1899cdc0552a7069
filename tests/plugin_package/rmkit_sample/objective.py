"""A training objective: the hinge loss max(0, lead - (chosen - rejected)), in points of reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge(PairObjective):
    lead: Annotated[float, "how far the chosen response is to be ahead"] = 1.0

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        return (self.lead - (pairs.chosen - pairs.rejected)).clamp(min=0)
