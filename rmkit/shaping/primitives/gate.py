"""One number where a condition holds, another where it does not: masks, sign gates, hard requirements.

The condition is on the column `where` (its own where not set): above, at_least, below, at_most (all that are set must
hold), or `equal` to one of some labels or numbers. Where the condition's column is missing stands `unscored`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import MISSING, Transform, merged, operand, operand_needs, widest


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Transform):
    anywhere: ClassVar[bool] = True

    where: Annotated[str, "the column of the condition; its own where not set"] = ""
    above: Annotated[Any, "a number or column that it must exceed"] = -math.inf
    at_least: Annotated[Any, "a number or column that it must reach"] = -math.inf
    below: Annotated[Any, "a number or column that it must stay under"] = math.inf
    at_most: Annotated[Any, "a number or column that it must not exceed"] = math.inf
    equal: Annotated[tuple[Any, ...], "labels or numbers of which it must be one"] = ()
    then: Annotated[Any, "a number, a column or missing where it holds; its own column where not set"] = ""
    otherwise: Annotated[Any, "a number, a column or missing where it does not"] = 0.0
    unscored: Annotated[Any, "a number, a column or missing where the condition's column is missing"] = MISSING

    def __post_init__(self) -> None:
        if self.equal and any(math.isfinite(x) for x in self._bounds if not isinstance(x, str)):
            raise ConfigError("a gate is on `equal` or on bounds, not on both")

    @property
    def _bounds(self) -> list[Any]:
        return [self.above, self.at_least, self.below, self.at_most]

    @property
    def needs(self) -> dict[str, Kind]:
        own: dict[str, Kind] = {self.where or self.column: "key" if self.equal else "number"}
        others = [self.then or self.column, self.otherwise, self.unscored, *self._bounds]
        return merged(own, *(operand_needs(one, "gate") for one in others))

    def result(self, group: Group) -> Column:
        where = group.column(self.where or self.column)
        shape = widest(group, [name for name, kind in self.needs.items() if kind != "key"] or [self.column], where)
        if self.equal and where.labels is not None:
            values = np.where(where.values < 0, np.nan, where.values)
            targets = [where.labels.index(one) for one in self.equal if one in where.labels]
            observed = np.repeat(values, shape.lengths) if not where.same_shape(shape) else values  # type: ignore[arg-type]
        else:
            observed, targets = group.aligned(self.where or self.column, shape), list(self.equal)
        if self.equal:
            holds = np.isin(observed, targets)
        else:
            above, at_least, below, at_most = (operand(group, one, shape) for one in self._bounds)
            holds = (observed > above) | np.isneginf(above)
            holds &= (observed >= at_least) & (observed <= at_most)
            holds &= (observed < below) | np.isposinf(below)
        result = np.where(holds, operand(group, self.then or self.column, shape), operand(group, self.otherwise, shape))
        return Column(np.zeros(0), shape.lengths).over(
            np.where(np.isnan(observed), operand(group, self.unscored, shape), result)
        )
