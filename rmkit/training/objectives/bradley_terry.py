"""Bradley-Terry; on the implicit rewards of a policy it is DPO (`rmkit.losses.bradley_terry`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class BradleyTerry(PairObjective):
    reviewable: ClassVar[bool] = True

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.bradley_terry import bradley_terry

        return bradley_terry(pairs.chosen, pairs.rejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class DPO(BradleyTerry):
    trains: ClassVar[tuple[str, ...]] = ("implicit",)
