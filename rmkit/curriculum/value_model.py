"""PCL's value model: a prompt's pass rate from frozen features, for prompts that nobody has tried.

Weighted ridge regression of mean rewards on features, in closed form; the paper trains a network on the same loss,
(V(x) - mean r)^2. Of a pool of k times as many prompts as needed, those with V nearest to one half are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import DataError
from rmkit.shaping.group import Floats

POOL = 4  # times as many prompts as are proposed (inferred)


@dataclass(frozen=True, slots=True)
class ValueModel:
    """V(x) = clip(x . weights + bias, 0, 1)."""

    weights: Floats
    bias: float

    @classmethod
    def fit(cls, features: ArrayLike, pass_rates: ArrayLike, counts: ArrayLike, *, ridge: float = 1.0) -> ValueModel:
        """Of features [P, D], mean rewards [P] and the numbers of answers [P] behind them, which weigh the rows."""
        x, y, weight = (np.asarray(one, np.float64) for one in (features, pass_rates, counts))
        if x.ndim != 2 or y.shape != (len(x),) or weight.shape != (len(x),):
            raise DataError(
                f"expected features [P, D] and P pass rates and counts, got {x.shape}, {y.shape}, {weight.shape}"
            )
        known = np.isfinite(y) & (weight > 0)
        if not known.any():
            return cls(np.zeros(x.shape[1]), 0.5)
        x, y, weight = x[known], y[known], weight[known]
        mean, bias = np.average(x, axis=0, weights=weight), float(np.average(y, weights=weight))
        centered = x - mean
        gram = centered.T @ (weight[:, None] * centered) + ridge * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, centered.T @ (weight * (y - bias)))
        return cls(np.asarray(weights, np.float64), bias - float(mean @ weights))

    def predict(self, features: ArrayLike) -> Floats:
        """[P] values in [0, 1]."""
        return np.clip(np.asarray(features, np.float64) @ self.weights + self.bias, 0.0, 1.0)
