"""The value at a neighboring place of the list: of the next step (`by` = 1), the previous one (-1), or farther away.

Beyond the ends stands `fill`: a number, a column, missing, or `own`, the value that stands there now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import MISSING, Transform, merged, operand, operand_needs

OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift(Transform):
    anywhere: ClassVar[bool] = True

    by: Annotated[int, "how many places ahead"] = 1
    fill: Annotated[Any, "what stands beyond the ends: a number, a column, missing or own"] = MISSING

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "list"}, {} if self.fill == OWN else operand_needs(self.fill, "fill"))

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        assert column.lengths is not None
        place = column.positions + self.by
        inside = (place >= 0) & (place < np.repeat(column.lengths, column.lengths))
        fill = column.values if self.fill == OWN else operand(group, self.fill, column)
        source = np.clip(np.arange(len(place)) + self.by, 0, max(len(place) - 1, 0))
        return column.over(np.where(inside, column.values[source], fill))
