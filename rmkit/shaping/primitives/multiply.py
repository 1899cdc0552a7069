"""Times the columns `by`, divided by the columns `over`; a scalar counts at each place of a list.

`epsilon` is added to each divisor. Where a divisor is not above `least`, the result is zero: no division by nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.transform import Transform, names, widest


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiply(Transform):
    anywhere: ClassVar[bool] = True

    by: Annotated[Any, "factors: a column or several"] = ()
    over: Annotated[Any, "divisors: a column or several"] = ()
    epsilon: Annotated[float, "added to each divisor"] = 0.0
    least: Annotated[float, "the result is 0 where a divisor is no larger"] = 0.0

    @property
    def needs(self) -> dict[str, Kind]:
        return dict.fromkeys((self.column, *names(self.by, "by"), *names(self.over, "over")), "number")

    def result(self, group: Group) -> Column:
        shape = widest(group, list(self.needs))
        result = group.aligned(self.column, shape)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for name in names(self.by, "by"):
                result = result * group.aligned(name, shape)
            for name in names(self.over, "over"):
                divisor = group.aligned(name, shape)
                result = np.where(divisor <= self.least, result * 0.0, result / (divisor + self.epsilon))
        return shape.over(result)
