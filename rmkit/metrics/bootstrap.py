"""Cluster bootstrap: intervals for means of items that are not independent.

Pairs that share a prompt family rise and fall together, so whole clusters are resampled with replacement and the ratio
sum(numerator) / sum(denominator) is recomputed (Cameron, Gelbach & Miller 2008, section III; percentile interval of
Efron & Tibshirani 1993, chapter 13). Only the per-cluster sums enter, so 2,000 resamples of 10,000 items take well
under a second. Defaults: 2,000 resamples, 95%.

With fewer than two clusters there is nothing to resample and the interval is None. Below FEW_CLUSTERS a percentile
interval is too narrow: simulated on families of one to six items, an interval of 95% holds the truth in 88% of cases
with 10 clusters, 92% with 20, 94% from about 40 on. Read `n_clusters` beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEW_CLUSTERS = 50
_CELLS = 4_000_000  # resampled clusters held at once: bounds memory at about 100 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """Percentile interval [low, high] at `level`, from `n_clusters` resampled `resamples` times."""

    low: float
    high: float
    level: float
    n_clusters: int
    resamples: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of (first - second) over the `n` items that both have; `interval` None with fewer than two clusters."""

    value: float
    n: int
    interval: Interval | None


def clustered_interval(
    numerator: ArrayLike,
    clusters: ArrayLike,
    *,
    denominator: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Interval of sum(numerator) / sum(denominator) over items [n]; `clusters` [n] says which belong together.

    The denominator defaults to ones (a mean). The same seed gives the same interval.
    """
    numerator_n = np.asarray(numerator, dtype=np.float64)
    denominator_n = np.ones_like(numerator_n) if denominator is None else np.asarray(denominator, dtype=np.float64)
    sums = cluster_sums(clusters, numerator_n, denominator_n)
    if len(sums) < 2:
        return None
    ratio = _resampled_ratios(sums, resamples=resamples, seed=seed)
    low, high = np.nanquantile(ratio, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(sums), resamples)


def cluster_sums(clusters: ArrayLike, *columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """[clusters, columns] sums per cluster, in the order of the sorted cluster labels."""
    labels, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.stack([np.bincount(index, weights=column, minlength=len(labels)) for column in columns], axis=1)


def _resampled_ratios(sums: NDArray[np.float64], *, resamples: int, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    n, done = len(sums), []
    for start in range(0, resamples, max(1, _CELLS // n)):
        rows = min(max(1, _CELLS // n), resamples - start)
        drawn = generator.integers(n, size=(rows, n), dtype=np.int32)
        top, bottom = sums[:, 0][drawn].sum(axis=1), sums[:, 1][drawn].sum(axis=1)
        done.append(np.divide(top, bottom, out=np.full(rows, np.nan), where=bottom > 0))
    return np.concatenate(done)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    clusters: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Difference of two models' credits [n] on the same items; items where either is NaN are left out of both."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    both = ~np.isnan(difference)
    weight_n = np.ones(len(difference)) if weight is None else np.asarray(weight, dtype=np.float64)
    total = weight_n[both].sum()
    if not total > 0:
        return PairedDifference(float("nan"), 0, None)
    interval = clustered_interval(
        (difference * weight_n)[both],
        np.asarray(clusters)[both],
        denominator=weight_n[both],
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return PairedDifference(float((difference * weight_n)[both].sum() / total), int(both.sum()), interval)
