"""Labels that are flipped at a known rate: smoothed (cDPO), or by the unbiased loss (rDPO), which is unbounded below.

The losses are `rmkit.losses.label_smoothing` and `rmkit.losses.robust`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from rmkit.errors import ConfigError
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSmoothing(PairObjective):
    label_noise: Annotated[float, "share of flipped labels to assume, in [0, 0.5)"] = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_noise < 0.5:
            raise ConfigError(
                f"label_noise is a flip rate in [0, 0.5), got {self.label_noise}; from 0.5 on labels say nothing"
            )

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.label_smoothing import label_smoothing

        return label_smoothing(pairs.chosen, pairs.rejected, noise=self.label_noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Robust(LabelSmoothing):
    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.robust import robust

        return robust(pairs.chosen, pairs.rejected, noise=self.label_noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConservativeDPO(LabelSmoothing):
    trains: ClassVar[tuple[str, ...]] = ("implicit",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustDPO(Robust):
    trains: ClassVar[tuple[str, ...]] = ("implicit",)
