"""RiskPO's mixed value at risk: the lower tail of the scores weighs more than their middle, the upper tail nothing.

    A = [w (-(q_d - s)_+ / a_d) + ((s - q_d)_+ - (s - q_u)_+ + q_d - q_u) / (a_u - a_d)] / (w + 1)

q_d and q_u are running quantiles of earlier scores at a_d and a_u; they are state, so they come as columns (from the
prompt book's trackers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileRisk(Transform):
    anywhere: ClassVar[bool] = True

    lower: Annotated[str, "the column of the lower quantile"] = "quantile_lower"
    upper: Annotated[str, "the column of the upper quantile"] = "quantile_upper"
    lower_level: Annotated[float, "the lower quantile's level"] = 0.2
    upper_level: Annotated[float, "the upper quantile's level"] = 0.8
    weight: Annotated[float, "of the lower tail against the middle"] = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.lower_level < self.upper_level <= 1 or self.weight < 0:
            raise ConfigError(
                "expected 0 < lower_level < upper_level <= 1 and no negative weight, got "
                f"{self.lower_level}, {self.upper_level}, {self.weight}"
            )

    @property
    def needs(self) -> dict[str, Kind]:
        return {self.column: "number", self.lower: "number", self.upper: "number"}

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"order"})

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        s = column.values
        lower, upper = group.aligned(self.lower, column), group.aligned(self.upper, column)
        tail = -np.maximum(lower - s, 0.0) / self.lower_level
        middle = np.maximum(s - lower, 0.0) - np.maximum(s - upper, 0.0) + lower - upper
        spread = self.upper_level - self.lower_level
        return column.over((self.weight * tail + middle / spread) / (self.weight + 1))
