"""Values held between two bounds; missing ones stay missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Group
from rmkit.shaping.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(Transform):
    anywhere: ClassVar[bool] = True

    min: Annotated[float, "nothing is smaller"] = -math.inf
    max: Annotated[float, "nothing is larger"] = math.inf

    def __post_init__(self) -> None:
        if not self.min <= self.max:
            raise ConfigError(f"min must not be above max, got {self.min} and {self.max}")

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"order"})

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        return column.over(np.clip(column.values, self.min, self.max))
