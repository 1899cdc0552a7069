"""Pass@k of a group's right and wrong answers (1 and 0), without sampling.

    estimate     1 - C(wrong, k) / C(N, k), the unbiased share of k-subsets with a right one
    advantage    of a right answer (1 - R) / s, of a wrong one (1 - R - C(wrong - 1, k - 1) / C(N - 1, k - 1)) / s,
                 R the estimate and s = sqrt(R (1 - R)); 0 where s is 0; they sum to zero

Missing answers do not count. Below k answers there is neither. arXiv:2508.10751.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError, DataError
from rmkit.shaping.group import Column, Group, Kind
from rmkit.shaping.segments import Segments
from rmkit.shaping.transform import Stage, Transform, keys, merged, names


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAtK(Transform):
    stage: ClassVar[Stage] = "normalize"

    k: Annotated[int, "how many tries"]
    how: Annotated[Literal["estimate", "advantage"], "which number"] = "advantage"
    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k must be at least 1, got {self.k}")

    @property
    def needs(self) -> dict[str, Kind]:
        return merged({self.column: "number"}, keys(self.by))

    @property
    def keeps(self) -> frozenset[str]:
        return frozenset({"zero", "order"} if self.how == "advantage" else ())

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        right = column.values
        if not np.isin(right[~np.isnan(right)], (0.0, 1.0)).all():
            raise DataError(f"column {self.column!r} must hold 1 (right) and 0 (wrong) only")
        codes, m = group.key(names(self.by, "by"), column)
        segments = Segments(right, codes, m)
        pairs, place = np.unique(np.stack([segments.count, segments.sum()]), axis=1, return_inverse=True)
        numbers = np.array([self._numbers(int(n), int(c)) for n, c in pairs.T]).reshape(-1, 2)[place.ravel()][codes]
        return column.over(np.where(np.isnan(right), np.nan, np.where(right > 0, numbers[:, 0], numbers[:, 1])))

    def _numbers(self, n: int, c: int) -> tuple[float, float]:
        """For a right and for a wrong answer among n, c of them right."""
        if n < self.k:
            return math.nan, math.nan
        estimate = 1 - math.comb(n - c, self.k) / math.comb(n, self.k)
        if self.how == "estimate":
            return estimate, estimate
        spread = math.sqrt(estimate * (1 - estimate))
        if not spread:
            return 0.0, 0.0
        without = math.comb(max(n - c - 1, 0), self.k - 1) / math.comb(n - 1, self.k - 1)
        return (1 - estimate) / spread, (1 - estimate - without) / spread
