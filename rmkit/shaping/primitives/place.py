"""One number onto the places of a list: a completion's onto its tokens, a step's onto the tokens of the step.

    onto is a scalar    so many places for the completion's number
    onto is a list      of a completion's number: places like that list has; of a list of numbers: so many for each

The number stands at all of its places, at the first or at the last, and `otherwise` at the rest. With `divided` the
places share it, so that they sum to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from rmkit.errors import DataError
from rmkit.shaping.group import Codes, Column, Group, Kind, numbers
from rmkit.shaping.transform import Stage, Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(Transform):
    stage: ClassVar[Stage] = "place"

    onto: Annotated[str, "a column: how many places, or a list with as many"] = "length"
    at: Annotated[Literal["all", "first", "last"], "at which of its places"] = "all"
    otherwise: Annotated[float, "what stands at the other places"] = 0.0
    divided: Annotated[bool, "whether the places share the number"] = False

    @property
    def needs(self) -> dict[str, Kind]:
        return {self.column: "number", self.onto: "number"}

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"sum"} if self.divided or (self.at != "all" and not self.otherwise) else ())

    def result(self, group: Group) -> Column:
        column, onto = group.number(self.column), group.number(self.onto)
        if column.lengths is None and onto.lengths is not None:
            counts = onto.lengths
        elif column.same_shape(onto):
            if not (onto.values >= 0).all() or (onto.values % 1).any():
                raise DataError(f"column {self.onto!r} must hold whole numbers of places, none missing")
            counts = onto.values.astype(np.int64)
        else:
            raise DataError(f"the lists of columns {self.column!r} and {self.onto!r} differ in length")
        lengths = counts
        if column.lengths is not None:
            lengths = np.bincount(column.rows, counts, minlength=group.n).astype(np.int64)
        return numbers(self._placed(column, counts), lengths)

    def _placed(self, column: Column, counts: Codes) -> np.ndarray:
        values = column.values / np.maximum(counts, 1) if self.divided and self.at == "all" else column.values
        result = np.repeat(values, counts)
        if self.at == "all":
            return result
        ends = np.cumsum(counts)
        places = (ends - counts if self.at == "first" else ends - 1)[counts > 0]
        here = np.zeros(len(result), bool)
        here[places] = True
        return np.where(here | np.isnan(result), result, self.otherwise)
