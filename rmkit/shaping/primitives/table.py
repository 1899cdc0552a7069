"""Values looked up by one or several keys: rows of keys and a number, of which the first that fits counts.

    {use = "table", keys = ["verdict", "mode"], rows = [["right", "short", 1], ["wrong", "*", -1]]}

"*" fits everything that is there. `bands` cut a column of numbers: {confidence = [0.4, 0.7]} makes it 0 below 0.4, 1
from there on, 2 from 0.7 on. What fits no row is `default`; what lacks a key is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import ConfigError, DataError
from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import MISSING, REWARD, Transform, names, operand, operand_needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Transform):
    anywhere: ClassVar[bool] = True

    keys: Annotated[Any, "the columns to look up by"]
    rows: Annotated[tuple[Any, ...], "lists of one key for each column, then the number"]
    bands: Annotated[dict[str, Any], "ascending bounds that cut a column of numbers into 0, 1, 2 ..."] = field(
        default_factory=dict
    )
    default: Annotated[Any, "a number, a column or missing, where no row fits"] = MISSING
    into: Annotated[str, "the column that it writes"] = REWARD

    def __post_init__(self) -> None:
        for row in self.rows:
            if not isinstance(row, list | tuple) or len(row) != len(names(self.keys, "keys")) + 1:
                raise ConfigError(f"rows: expected {len(names(self.keys, 'keys'))} keys and a number, got {row!r}")
            operand_needs(row[-1], "rows")
        if unused := set(self.bands) - set(names(self.keys, "keys")):
            raise ConfigError(f"bands for {sorted(unused)}, which are not among the keys")

    @property
    def needs(self) -> dict[str, Kind]:
        own: dict[str, Kind] = dict.fromkeys(names(self.keys, "keys"), "key")
        return {**operand_needs(self.default, "default"), **own}

    def result(self, group: Group) -> Column:
        columns = [group.column(name) for name in names(self.keys, "keys")]
        shape = next((one for one in columns if one.lengths is not None), columns[0])
        inputs = [self._input(group, name, shape) for name in names(self.keys, "keys")]
        present = np.logical_and.reduce([there for _, there in inputs])
        result = operand(group, self.default, shape)
        open_ = present.copy()
        for *keys, value in self.rows:
            fits = open_.copy()
            for key, (values, _) in zip(keys, inputs, strict=True):
                if key != "*":
                    fits &= values == key
            result = np.where(fits, operand(group, value, shape), result)
            open_ &= ~fits
        return Column(np.zeros(0), shape.lengths).over(np.where(present, result, np.nan))

    def _input(self, group: Group, name: str, shape: Column) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        column = group.column(name)
        if column.labels is not None:
            if name in self.bands:
                raise DataError(f"column {name!r} holds labels; bands cut numbers")
            values = np.array([*column.labels, None], object)[column.values]
            there = column.values >= 0
        else:
            there = ~np.isnan(column.values)
            values = np.searchsorted(self.bands[name], column.values, "right") if name in self.bands else column.values
        if column.same_shape(shape):
            return values, there
        if column.lengths is not None:
            raise DataError(f"the lists of column {name!r} are not as long as those of the other keys")
        return np.repeat(values, shape.lengths), np.repeat(there, shape.lengths)  # type: ignore[arg-type]
