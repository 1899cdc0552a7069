"""How well scores of single responses agree with labels that people gave them, in numpy; weights count each item.

    concordance         P(the better labeled of two items scores higher), equal scores half; AUROC of labels 0 and 1
    average_precision   sum over thresholds of (recall gained) * precision, equal scores together
    quadratic_kappa     1 - observed / expected disagreement, weighted by the squared distance of levels (Cohen 1968)

Each takes weights [R, n], so that R resamples or n leave-one-out sets cost one sort, and gives [R]; NaN where it is not
defined. `influences` turns any of them into one number per item whose mean is the statistic and whose spread over
clusters is its own (infinitesimal jackknife; Efron 1982), so that intervals and paired tests work on items alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]

_BLOCK = 4_000_000  # weights held at once


def concordance(score: ArrayLike, label: ArrayLike, weight_Rn: ArrayLike) -> Array:
    """[R] share of the pairs with different labels that the scores order the same way."""
    scores, labels, weights = _arrays(score, label, weight_Rn)
    order, starts = _groups(scores)
    levels = np.unique(labels)
    by_level = [np.add.reduceat(weights[:, order] * (labels[order] == level), starts, axis=1) for level in levels]
    right, total = np.zeros(len(weights)), np.zeros(len(weights))
    for at, low in enumerate(by_level):
        below = np.cumsum(low, axis=1) - low / 2
        for high in by_level[at + 1 :]:
            right += (high * below).sum(axis=1)
            total += low.sum(axis=1) * high.sum(axis=1)
    return _ratio(right, total)


def average_precision(score: ArrayLike, good: ArrayLike, weight_Rn: ArrayLike) -> Array:
    """[R] average precision of the scores for finding the good items."""
    scores, goods, weights = _arrays(score, good, weight_Rn)
    order, starts = _groups(-scores)
    good_weight = np.add.reduceat(weights[:, order] * goods[order], starts, axis=1)
    everything = np.add.reduceat(weights[:, order], starts, axis=1)
    precision = _ratio(np.cumsum(good_weight, axis=1), np.cumsum(everything, axis=1))
    return _ratio(np.nansum(good_weight * precision, axis=1), good_weight.sum(axis=1))


def quadratic_kappa(predicted: ArrayLike, label: ArrayLike, weight_Rn: ArrayLike) -> Array:
    """[R] kappa of levels 0, 1, 2 ... with quadratic weights."""
    guesses, labels, weights = _arrays(predicted, label, weight_Rn)
    levels = np.arange(int(max(guesses.max(), labels.max())) + 1)
    of_guess = [weights @ (guesses == level).astype(float) for level in levels]
    of_label = [weights @ (labels == level).astype(float) for level in levels]
    expected = sum((i - j) ** 2 * of_guess[i] * of_label[j] for i in levels for j in levels)
    observed = weights @ (guesses - labels) ** 2
    return 1 - _ratio(observed * weights.sum(axis=1), np.asarray(expected))


def influences(statistic: Statistic, facts: ArrayLike) -> tuple[float, Array]:
    """The statistic of n items, and [n] numbers with that mean: what each item adds to it.

    `facts` [n, k] are all that the statistic sees of an item: equal items, which add the same, are left out once.
    """
    table = np.asarray(facts, float)
    n = len(table)
    value = float(statistic(np.ones((1, n)))[0])
    _, first, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
    rows = max(1, _BLOCK // n)
    by_kind = np.empty(len(first))
    for start in range(0, len(first), rows):
        left_out = first[start : start + rows]
        weights = np.ones((len(left_out), n))
        weights[np.arange(len(left_out)), left_out] = 0
        by_kind[start : start + rows] = statistic(weights)
    without = by_kind[kind.reshape(-1)]
    moved = (n - 1) * (value - np.where(np.isnan(without), value, without))
    return value, value + moved - moved.mean()


def _arrays(score: ArrayLike, label: ArrayLike, weight_Rn: ArrayLike) -> tuple[Array, Array, Array]:
    return np.asarray(score, float), np.asarray(label, float), np.atleast_2d(np.asarray(weight_Rn, float))


def _groups(values: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ascending order of values, and where in it each run of equal ones begins."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    return order, starts


def _ratio(top: Array, bottom: Array) -> Array:
    result: Array = np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom != 0)
    return result
