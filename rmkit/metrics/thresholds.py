"""Probabilities as yes or no: precision, recall and F1 at a threshold, and the threshold to choose.

    yes where p >= threshold      precision = right yes / yes      recall = right yes / positives

Unscored items (NaN) say nothing and are counted apart: no yes among them, but their positives count in the recall, so
that it cannot rise by not answering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Shares are NaN where nothing stands in their denominator."""

    threshold: float
    precision: float
    recall: float
    f1: float
    n: int
    positives: int
    unscored: int


def operating_point(p: ArrayLike, positive: ArrayLike, *, threshold: float) -> OperatingPoint:
    """Of probabilities [n] and boolean labels [n]."""
    p_n, positive_n = _checked(p, positive)
    yes_n = p_n >= threshold
    right, yes, positives = int((yes_n & positive_n).sum()), int(yes_n.sum()), int(positive_n.sum())
    return OperatingPoint(
        threshold=threshold,
        precision=right / yes if yes else math.nan,
        recall=right / positives if positives else math.nan,
        f1=2 * right / (yes + positives) if yes + positives else math.nan,
        n=len(p_n),
        positives=positives,
        unscored=int(np.isnan(p_n).sum()),
    )


def threshold_of_precision(p: ArrayLike, positive: ArrayLike, *, precision: float) -> float | None:
    """The lowest threshold (the highest recall) whose precision is at least this; None where there is none."""
    points = _points(p, positive)
    return min((one.threshold for one in points if one.precision >= precision), default=None)


def threshold_of_f1(p: ArrayLike, positive: ArrayLike) -> float | None:
    """The threshold with the highest F1, midway to the next lower probability; the higher of equal ones. None without
    both classes."""
    points = [one for one in _points(p, positive) if one.positives and one.positives < one.n]
    if not points:
        return None
    best = max(points, key=lambda one: (one.f1, one.threshold))
    lower = [one.threshold for one in points if one.threshold < best.threshold]
    return (best.threshold + max(lower)) / 2 if lower else best.threshold


def _points(p: ArrayLike, positive: ArrayLike) -> list[OperatingPoint]:
    """At every probability that occurs."""
    p_n, positive_n = _checked(p, positive)
    return [operating_point(p_n, positive_n, threshold=float(one)) for one in np.unique(p_n[~np.isnan(p_n)])]


def _checked(p: ArrayLike, positive: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    p_n, positive_n = np.asarray(p, np.float64), np.asarray(positive, bool)
    if p_n.ndim != 1 or p_n.shape != positive_n.shape:
        raise DataError(f"expected as many probabilities as labels, got {p_n.shape} and {positive_n.shape}")
    return p_n, positive_n
