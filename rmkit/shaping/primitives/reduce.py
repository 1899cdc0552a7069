"""A list to one number, or to one number per section of it (`by`: a list of labels; a section is a run of equal ones).

A missing element has no part in a mean, a minimum, a quantile; a sum or product over it is missing. A sum over nothing
is 0, all else over nothing is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Codes, Column, Group, Kind, numbers
from rmkit.shaping.segments import Segments
from rmkit.shaping.transform import Transform

How = Literal["sum", "product", "mean", "min", "max", "first", "last", "count", "mode", "quantile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce(Transform):
    anywhere: ClassVar[bool] = True

    how: Annotated[How, "which number"]
    by: Annotated[str, "a list of labels that cuts the list into sections"] = ""
    q: Annotated[float, "of quantile, in [0, 1]"] = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1:
            raise ConfigError(f"q must be in [0, 1], got {self.q}")

    @property
    def needs(self) -> dict[str, Kind]:
        return {self.column: "list", **({self.by: "key"} if self.by else {})}

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        codes, m, lengths = column.rows, group.n, None
        if self.by:
            codes, m, lengths = self._sections(group, column)
        segments = Segments(column.values, codes, m)
        match self.how:
            case "sum" | "product":
                complete = segments.count == np.bincount(codes, minlength=m)
                if self.how == "sum":
                    result = segments.sum()
                else:
                    result = np.ones(m)
                    np.multiply.at(result, segments.codes, segments.values)
                result = np.where(complete, result, np.nan)
            case "last":
                result = np.full(m, np.nan)
                result[segments.codes] = segments.values
            case "quantile":
                result = segments.quantile(self.q)
            case "count":
                result = segments.count
            case _:
                result = getattr(segments, self.how)()
        return numbers(result, lengths)

    def _sections(self, group: Group, column: Column) -> tuple[Codes, int, Codes]:
        labels, _ = group.key([self.by], column)
        rows = column.rows
        new = np.ones(len(labels), bool)
        new[1:] = (labels[1:] != labels[:-1]) | (rows[1:] != rows[:-1])
        codes = np.cumsum(new) - 1
        return codes, int(new.sum()), np.bincount(rows[new], minlength=group.n).astype(np.int64)
