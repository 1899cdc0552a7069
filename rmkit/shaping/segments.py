"""Statistics of values by key: sums and moments in which missing values count nowhere."""

from __future__ import annotations

import numpy as np

from rmkit.shaping.group import Codes, Floats


class Segments:
    """`values` [T] under `codes` [T] in 0 ... m - 1; `weight` [T] counts each value so many times.

    What is missing, or has a weight of zero, takes no part. Results are [m]; NaN for a key without values.
    """

    def __init__(self, values: Floats, codes: Codes, m: int, weight: Floats | None = None) -> None:
        present = ~np.isnan(values)
        if weight is not None:
            present &= weight > 0
        self._all = bool(present.all())
        self.values = values if self._all else values[present]
        self.codes = codes if self._all else codes[present]
        self._weight = weight if weight is None or self._all else weight[present]
        self.m = m
        self.count = self.sum(np.ones(len(self.values)))

    def sum(self, values: Floats | None = None) -> Floats:
        """Weighted sums of the present values, or of others in their places; 0 for a key without values."""
        values = self.values if values is None else values
        values = values if self._weight is None else values * self._weight
        return np.asarray(np.bincount(self.codes, values, minlength=self.m), np.float64)

    def mean(self) -> Floats:
        """The mean, its rounding error corrected: that of equal values is that value."""
        with np.errstate(invalid="ignore", over="ignore"):
            mean = self.sum() / self.count
            return mean + self.sum(self.values - mean[self.codes]) / self.count

    def variance(self, mean: Floats, *, sample: bool) -> Floats:
        """Around `mean`, divided by the count, less one for that of a sample."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self.sum((self.values - mean[self.codes]) ** 2) / (self.count - sample)

    def min(self) -> Floats:
        """The smallest value of each key."""
        return -self._extreme(-self.values)

    def max(self) -> Floats:
        """The largest value of each key."""
        return self._extreme(self.values)

    def _extreme(self, values: Floats) -> Floats:
        result = np.full(self.m, -np.inf)
        np.maximum.at(result, self.codes, values)
        return np.where(self.count > 0, result, np.nan)

    def quantile(self, q: float) -> Floats:
        """Linear between the order statistics, as numpy's; weights only say who takes part."""
        ordered, begin, size = self._ordered()
        place = (size - 1) * q
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(size - 1, 0))
        result = np.full(self.m, np.nan)
        some = size > 0
        first, second = ordered[begin[some] + low[some]], ordered[begin[some] + high[some]]
        result[some] = first + (second - first) * (place - low)[some]
        return result

    def first(self) -> Floats:
        """The first value of each key."""
        result = np.full(self.m, np.nan)
        result[self.codes[::-1]] = self.values[::-1]
        return result

    def mode(self) -> Floats:
        """The most frequent value, the smallest of equally frequent ones."""
        ordered, begin, size = self._ordered()
        result = np.full(self.m, np.nan)
        for key in np.flatnonzero(size):
            values, counts = np.unique(ordered[begin[key] : begin[key] + size[key]], return_counts=True)
            result[key] = values[counts.argmax()]
        return result

    def _ordered(self) -> tuple[Floats, Codes, Codes]:
        """The values sorted within their keys, where each key begins, and how many it has."""
        order = np.lexsort((self.values, self.codes))
        size = np.bincount(self.codes, minlength=self.m)
        return self.values[order], np.cumsum(size) - size, size
