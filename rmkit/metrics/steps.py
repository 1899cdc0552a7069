"""How well step probabilities find errors.

    AUC            chance that a right step scores above a wrong one, ties half (Mann & Whitney 1947), over all
                   labeled steps; labels from 0.5 on count as right
    first error    the first step below the threshold, -1 where there is none. Right only when it is the labeled one:
                   a = share among solutions with an error, b = among those without, F1 = 2 a b / (a + b)
                   (ProcessBench, Zheng et al. 2024, arXiv:2412.06559)

Steps after the first error carry no label (NaN) where the data ends them there; they enter nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NO_ERROR = -1


@dataclass(frozen=True, slots=True)
class FirstError:
    """`right` [n] 1.0 where the prediction is the label; shares are NaN where there is no such solution."""

    right: NDArray[np.float64]
    erroneous: int
    correct: int
    error_accuracy: float
    correct_accuracy: float
    f1: float


def first_error(steps: Sequence[float], *, threshold: float = 0.5) -> int:
    """Index of the first step below the threshold, -1 where there is none. NaN (no label) is not below it."""
    return next((index for index, value in enumerate(steps) if value < threshold), NO_ERROR)


def first_error_scores(predicted: Sequence[int], labeled: Sequence[int]) -> FirstError:
    """The ProcessBench measure of predicted first errors [n] against labeled ones [n]."""
    right = (np.asarray(predicted) == np.asarray(labeled)).astype(np.float64)
    erroneous = np.asarray(labeled) != NO_ERROR
    a, b = (float(right[part].mean()) if part.any() else math.nan for part in (erroneous, ~erroneous))
    f1 = 2 * a * b / (a + b) if a + b > 0 else (0.0 if a + b == 0 else math.nan)
    return FirstError(right, int(erroneous.sum()), int((~erroneous).sum()), a, b, f1)


def auc(score: ArrayLike, positive: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Weighted area under the ROC curve of scores [n] for boolean labels [n]; NaN where one class is absent."""
    score_n, positive_n = np.asarray(score, dtype=np.float64), np.asarray(positive, dtype=bool)
    weight_n = np.ones(len(score_n)) if weight is None else np.asarray(weight, dtype=np.float64)
    _, level = np.unique(score_n, return_inverse=True)
    n_levels = int(level.max()) + 1 if len(level) else 0
    good, bad = (np.bincount(level[c], weights=weight_n[c], minlength=n_levels) for c in (positive_n, ~positive_n))
    total = float(good.sum() * bad.sum())
    return float((good * (bad.cumsum() - bad / 2)).sum() / total) if total > 0 else math.nan
