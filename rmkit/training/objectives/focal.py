"""Bradley-Terry that looks at the pairs that are not settled yet (`rmkit.losses.focal`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rmkit.errors import ConfigError
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Focal(PairObjective):
    focal_gamma: Annotated[float, "how strongly settled pairs are weighed down; 0 is Bradley-Terry"] = 2.0

    def __post_init__(self) -> None:
        if self.focal_gamma < 0:
            raise ConfigError(f"focal_gamma must be at least 0, got {self.focal_gamma}")

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.focal import focal

        return focal(pairs.chosen, pairs.rejected, gamma=self.focal_gamma)
