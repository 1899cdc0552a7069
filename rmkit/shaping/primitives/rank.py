"""The share of the others that a value beats, ties as half: (wins + ties / 2) / (n - 1), in [0, 1].

A value alone under its key has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import Stage, Transform, keys, merged, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank(Transform):
    stage: ClassVar[Stage] = "normalize"

    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "number"}, keys(self.by))

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"shift", "scale", "order"})

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        codes, m = group.key(names(self.by, "by"), column)
        order = np.lexsort((column.values, codes))
        order = order[~np.isnan(column.values[order])]
        values, ordered = column.values[order], codes[order]
        size = np.bincount(ordered, minlength=m)
        begin = np.cumsum(size) - size
        differs = np.ones(len(order), bool)
        differs[1:] = (values[1:] != values[:-1]) | (ordered[1:] != ordered[:-1])
        tie = np.cumsum(differs) - 1
        first = np.flatnonzero(differs)
        last = np.append(first[1:], len(order)) - 1
        place = (first + last)[tie] / 2 - begin[ordered]  # the middle of the tie, from 0 within the key
        result = np.full(len(column.values), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[order] = place / (size - 1)[ordered]
        return column.over(result)
