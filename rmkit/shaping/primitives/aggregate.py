"""One number per key, written at all that share the key.

A missing value has no part in a mean, a minimum, a quantile, a deviation; a sum over it is missing for the whole key.
Statistics may be taken over a subset only (`where` > 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.segments import Segments
from rmkit.shaping.transform import Stage, Transform, keys, merged, names

How = Literal["sum", "mean", "min", "max", "first", "count", "mode", "quantile", "std", "population_std"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(Transform):
    stage: ClassVar[Stage] = "group"

    how: Annotated[How, "which number"]
    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"
    where: Annotated[str, "a column: only where it is positive"] = ""
    q: Annotated[float, "of quantile, in [0, 1]"] = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1:
            raise ConfigError(f"q must be in [0, 1], got {self.q}")

    @property
    def needs(self) -> dict[str, Kind]:
        columns: dict[str, Kind] = {name: "number" for name in (self.column, self.where) if name}
        return merged(columns, keys(self.by))

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        codes, m = group.key(names(self.by, "by"), column)
        weight = (group.aligned(self.where, column) > 0).astype(np.float64) if self.where else None
        segments = Segments(column.values, codes, m, weight)
        match self.how:
            case "sum":
                all_of = np.bincount(codes, weight, minlength=m)
                result = np.where(segments.count == all_of, segments.sum(), np.nan)
            case "count":
                result = segments.count
            case "quantile":
                result = segments.quantile(self.q)
            case "std" | "population_std":
                result = np.sqrt(segments.variance(segments.mean(), sample=self.how == "std"))
            case _:
                result = getattr(segments, self.how)()
        return column.over(result[codes])
