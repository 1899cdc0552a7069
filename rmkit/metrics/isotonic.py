"""Isotonic link from margins to pair probabilities: monotone, and fair to the order of a pair.

    g = argmin sum_i w_i [ (g(m_i) - p_i)^2 + (g(-m_i) - (1 - p_i))^2 ]     over non-decreasing g

Pool-adjacent-violators (Barlow et al. 1972; for calibration Zadrozny & Elkan 2002) through scikit-learn. Which response
comes first is arbitrary, so every pair enters in both orders and g(-m) = 1 - g(m) holds exactly. Between the knots g is
linear, outside it is constant. A step function fitted on n pairs knows no probability finer than about 1 / n, so values
stay within [1 / (n + 2), (n + 1) / (n + 2)] (Laplace's rule): none is 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Knots of the link: `margin` ascending, `p` non-decreasing, symmetric about (0, 1/2)."""

    margin: tuple[float, ...]
    p: tuple[float, ...]

    def __call__(self, margin: ArrayLike) -> NDArray[np.float64]:
        """[n] probabilities that the first is better; NaN stays NaN."""
        values = np.asarray(margin, dtype=np.float64)
        result: NDArray[np.float64] = np.interp(values, self.margin, self.p)
        return np.where(np.isnan(values), np.nan, result)


def fit_isotonic(margin: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> Isotonic:
    """The link of the margins [n] to labels [n] in [0, 1]; pairs with a NaN margin are left out.

    Without any known margin it is the constant 1/2.
    """
    from sklearn.isotonic import IsotonicRegression

    margin_n, label_n = np.asarray(margin, dtype=np.float64), np.asarray(p, dtype=np.float64)
    weight_n = np.ones(len(margin_n)) if weight is None else np.asarray(weight, dtype=np.float64)
    known = ~np.isnan(margin_n)
    if not known.any():
        return Isotonic((0.0,), (0.5,))
    x, y, w = margin_n[known], label_n[known], weight_n[known]
    model = IsotonicRegression(out_of_bounds="clip")
    model.fit(np.concatenate([x, -x]), np.concatenate([y, 1 - y]), sample_weight=np.concatenate([w, w]))
    least = 1 / (len(x) + 2)
    knots, values = model.X_thresholds_, np.clip(model.y_thresholds_, least, 1 - least)
    # symmetric to the last bit, which pooling in floating point is not
    knots, values = (knots - knots[::-1]) / 2, (values + 1 - values[::-1]) / 2
    return Isotonic(tuple(knots.tolist()), tuple(values.tolist()))
