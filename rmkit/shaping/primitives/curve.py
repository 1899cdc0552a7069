"""A function of each value.

log         factor * log(max(x, floor))
exp, tanh, logistic, softplus, abs
power       sign-less x^exponent; a negative base has none unless the exponent is whole
sign        -1, 0 or 1; 0 where |x| is not above `margin`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Floats, Group
from rmkit.shaping.transform import Transform

Function = Literal["log", "exp", "tanh", "logistic", "softplus", "abs", "power", "sign"]
FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "logistic": lambda x: 0.5 + 0.5 * np.tanh(x / 2),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "abs": np.abs,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve(Transform):
    anywhere: ClassVar[bool] = True

    function: Annotated[Function, "which function"]
    exponent: Annotated[float, "of power"] = 1.0
    floor: Annotated[float, "log: smaller values are taken as this"] = 1e-8
    factor: Annotated[float, "log: a temperature or an annealed multiplier"] = 1.0
    margin: Annotated[float, "sign: what is not farther from zero is 0"] = 0.0

    def __post_init__(self) -> None:
        if self.floor <= 0 or self.margin < 0:
            raise ConfigError(f"floor must be positive and margin not negative, got {self.floor} and {self.margin}")

    @property
    def keeps(self) -> frozenset[str]:
        if self.function in ("abs", "power") or (self.function == "log" and self.factor < 0):
            return frozenset()
        return frozenset({"order"})

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        x = column.values
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            match self.function:
                case "log":
                    result = self.factor * np.log(np.maximum(x, self.floor))
                case "power":
                    result = x**self.exponent
                case "sign":
                    result = np.where(np.abs(x) > self.margin, np.sign(x), np.where(np.isnan(x), np.nan, 0.0))
                case _:
                    result = FUNCTIONS[self.function](x)
        return column.over(result)
