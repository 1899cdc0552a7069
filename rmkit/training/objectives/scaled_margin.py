"""Pairs whose margin counts by a factor: TRPA's pairs of levels (`rmkit.losses.scaled_margin`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from rmkit.errors import ConfigError
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledMargin(PairObjective):
    """The labeled margin of a row is its pairs' factor. Implicit rewards are means over tokens."""

    trains: ClassVar[tuple[str, ...]] = ("explicit", "implicit")
    divides: ClassVar[bool] = True

    default_factor: Annotated[float, "of rows without a margin"] = 1.0

    def __post_init__(self) -> None:
        if self.default_factor <= 0:
            raise ConfigError(f"default_factor must be positive, got {self.default_factor}")

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        from rmkit.losses.scaled_margin import scaled_margin

        factor_Q = pairs.margin.where(pairs.margin > 0, pairs.margin.new_tensor(self.default_factor))
        return scaled_margin(pairs.chosen, pairs.rejected, factor_B=factor_Q)
