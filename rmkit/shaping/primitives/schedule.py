"""A number that changes while training goes on, from `start` to `end`, read off a column of progress in [0, 1].

linear       start + (end - start) t
cosine       end + (start - end) (1 + cos(pi t)) / 2
exponential  end + (start - end) exp(-rate t); t may be above 1
step         start before `at`, end from there on
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from rmkit.shaping.group import Column, Group
from rmkit.shaping.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Transform):
    anywhere: ClassVar[bool] = True

    column: Annotated[str, "training progress, 0 at the begin and 1 at the end"] = "progress"
    shape: Annotated[Literal["linear", "cosine", "exponential", "step"], "the way from start to end"] = "linear"
    start: Annotated[float, "the number at progress 0"] = 1.0
    end: Annotated[float, "the number at progress 1"] = 0.0
    rate: Annotated[float, "of exponential"] = 1.0
    at: Annotated[float, "of step: the progress from which on it is `end`"] = 0.5

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        t = column.values if self.shape == "exponential" else np.clip(column.values, 0.0, 1.0)
        match self.shape:
            case "linear":
                left = 1 - t
            case "cosine":
                left = (1 + np.cos(np.pi * t)) / 2
            case "exponential":
                left = np.exp(-self.rate * t)
            case _:
                left = np.where(np.isnan(t), np.nan, np.where(t < self.at, 1.0, 0.0))
        return column.over(self.end + (self.start - self.end) * left)
