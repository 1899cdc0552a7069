"""A mask, 1 or 0, that balances a key: of those where `where` is above 0, as many at random as there are others.

The draw is fixed by `seed` and by the place in the group, so a group that is shaped again drops the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import Stage, Transform, keys, merged, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Transform):
    stage: ClassVar[Stage] = "group"

    column: Annotated[str, "above 0 for those of which the surplus is dropped"]
    into: Annotated[str, "the mask that it writes"] = "mask"
    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"
    seed: Annotated[int, "of the draw"] = 0

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "scalar"}, keys(self.by))

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        codes, m = group.key(names(self.by, "by"), column)
        many = column.values > 0
        others = np.bincount(codes[~many & ~np.isnan(column.values)], minlength=m)
        result = np.where(np.isnan(column.values), np.nan, 1.0)
        for key in range(m):
            places = np.flatnonzero(many & (codes == key)) if m > 1 else np.flatnonzero(many)
            surplus = len(places) - others[key]
            if surplus > 0:
                draw = np.random.default_rng([self.seed, len(places), int(others[key])])
                result[draw.choice(places, surplus, replace=False)] = 0.0
        return column.over(result)
