"""The mean of one part of a key less the mean of the other part: where the column `positive` is above 0, and where not.

Written at all of the key; missing where a part is empty. What lacks `positive` is in neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.segments import Segments
from rmkit.shaping.transform import Stage, Transform, keys, merged, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast(Transform):
    stage: ClassVar[Stage] = "group"

    positive: Annotated[str, "a column: above 0 for the first part"]
    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "number", self.positive: "number"}, keys(self.by))

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"shift"})

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        codes, m = group.key(names(self.by, "by"), column)
        part = group.aligned(self.positive, column)
        first = Segments(np.where(part > 0, column.values, np.nan), codes, m).mean()
        second = Segments(np.where(part <= 0, column.values, np.nan), codes, m).mean()
        return column.over((first - second)[codes])
