"""The discounted sum of what follows: G_t = x_t + gamma G_{t+1}, along each list.

With `by` the steps are completions instead, in the order of the rows that share the key (a trajectory's, say). What is
missing makes all before it missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Codes, Column, Floats, Group, Kind
from rmkit.shaping.transform import Transform, keys, merged, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns(Transform):
    anywhere: ClassVar[bool] = True

    gamma: Annotated[float, "the discount, in [0, 1]"] = 1.0
    by: Annotated[Any, "keys of the rows that follow each other; along lists where not set"] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must be in [0, 1], got {self.gamma}")

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "scalar" if names(self.by, "by") else "list"}, keys(self.by))

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        if not names(self.by, "by"):
            assert column.lengths is not None
            return column.over(_returns(column.values, column.lengths, self.gamma))
        codes, m = group.key(names(self.by, "by"), column)
        order = np.argsort(codes, kind="stable")
        result = np.empty(len(order))
        result[order] = _returns(column.values[order], np.bincount(codes, minlength=m), self.gamma)
        return column.over(result)


def _returns(values: Floats, lengths: Codes, gamma: float) -> Floats:
    """From the last place of all rows to the first, one place at a time."""
    result = values.copy()
    ends = np.cumsum(lengths)
    for back in range(2, int(lengths.max(initial=0)) + 1):
        here = (ends - back)[lengths >= back]
        result[here] += gamma * result[here + 1]
    return result
