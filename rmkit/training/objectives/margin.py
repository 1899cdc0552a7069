"""Bradley-Terry that asks for the labeled margin as well (`rmkit.losses.margin`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rmkit.errors import ConfigError
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin(PairObjective):
    margin_scale: Annotated[float, "reward per unit of the labeled margin"] = 1.0

    def __post_init__(self) -> None:
        if self.margin_scale <= 0:
            raise ConfigError(f"margin_scale must be positive, got {self.margin_scale}")

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.margin import margin

        return margin(pairs.chosen, pairs.rejected, margin_B=self.margin_scale * pairs.margin)
