"""A weighted sum of columns: scale * x + sum_k add_k * c_k + shift.

Without a `column` of its own it is the sum alone. Where one of them is a list, scalars count at each of its places. A
missing addend makes the sum missing; with `unscored = "zero"` it counts 0, as TRL's weighted sum takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import Transform, merged, operand, operand_needs, widest


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine(Transform):
    anywhere: ClassVar[bool] = True

    scale: Annotated[float, "the factor of its own column"] = 1.0
    add: Annotated[dict[str, float], "other columns with their weights"] = field(default_factory=dict)
    shift: Annotated[Any, "a number or a column that is added"] = 0.0
    unscored: Annotated[Literal["missing", "zero"], "what a missing addend makes of the sum"] = "missing"

    def __post_init__(self) -> None:
        if not self.column and not (self.add and self.into):
            raise ConfigError("affine without a column needs `add` and `into`")

    @property
    def needs(self) -> dict[str, Kind]:
        own: dict[str, Kind] = {name: "number" for name in (self.column, *self.add) if name}
        return merged(own, operand_needs(self.shift, "shift"))

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"order"} if self.scale >= 0 and not self.add and not isinstance(self.shift, str) else ())

    def result(self, group: Group) -> Column:
        weights = {**({self.column: self.scale} if self.column else {}), **self.add}
        if self.column in self.add:
            weights[self.column] = self.scale + self.add[self.column]
        shape = widest(group, [*weights, *operand_needs(self.shift, "shift")])
        total = operand(group, self.shift, shape)
        if self.unscored == "missing":
            for name, weight in weights.items():
                total = total + weight * group.aligned(name, shape)
            return shape.over(total)
        present = np.zeros(len(total), bool)
        for name, weight in weights.items():
            values = group.aligned(name, shape)
            present |= ~np.isnan(values)
            total = total + weight * np.nan_to_num(values)
        return shape.over(np.where(present, total, np.nan))
