"""Calibration of pair probabilities against soft labels.

Let q = sigmoid(margin / temperature) be the model's probability that the first response is better, and p the label.

    Brier      mean (q - p)^2                                                      (Brier 1950)
    log loss   mean -[p ln q + (1 - p) ln(1 - q)], q clipped to [1e-6, 1 - 1e-6]; its floor is the entropy of p
    ECE        sum over equal-width bins of q: n_b / n |mean q - mean p|           (Naeini et al. 2015; 10 bins)

Which response comes first is arbitrary (the order of content hashes), so a bin below 0.5 is as informative as one
above. One temperature, fitted on validation data by minimizing the log loss (Guo et al. 2017), changes no ranking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CLIP = 1e-6


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Items whose predicted probability lies in [low, high) (the last bin includes 1); means are NaN when empty."""

    low: float
    high: float
    n: int
    mean_predicted: float
    mean_label: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`label_entropy` is the log loss of a model that knew every p: the floor under `log_loss`."""

    n: int
    ece: float
    brier: float
    log_loss: float
    label_entropy: float
    bins: tuple[ReliabilityBin, ...]


def sigmoid(margin: ArrayLike) -> NDArray[np.float64]:
    """Elementwise logistic function without overflow; NaN stays NaN."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(margin, dtype=np.float64)))


def log_loss(predicted: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Mean cross-entropy in nats of predictions [n] under labels [n]; NaN predictions are left out."""
    q, label = np.asarray(predicted, dtype=np.float64), np.asarray(p, dtype=np.float64)
    known = ~np.isnan(q)
    if not known.any():
        return float("nan")
    q = np.clip(q[known], _CLIP, 1 - _CLIP)
    loss = -(label[known] * np.log(q) + (1 - label[known]) * np.log1p(-q))
    return float(np.average(loss, weights=None if weight is None else np.asarray(weight)[known]))


def calibration(predicted: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None, bins: int = 10) -> Calibration:
    """Calibration of predictions [n] in [0, 1] against labels [n] in [0, 1]; NaN predictions are left out."""
    q, label = np.asarray(predicted, dtype=np.float64), np.asarray(p, dtype=np.float64)
    weight_n = np.ones(len(q)) if weight is None else np.asarray(weight, dtype=np.float64)
    known = ~np.isnan(q)
    q, label, weight_n = q[known], label[known], weight_n[known]
    if not len(q):
        return Calibration(0, float("nan"), float("nan"), float("nan"), float("nan"), ())
    index = np.minimum((q * bins).astype(int), bins - 1)
    mass = np.bincount(index, weights=weight_n, minlength=bins)
    mean_q, mean_p = (
        np.divide(
            np.bincount(index, weights=weight_n * x, minlength=bins), mass, out=np.full(bins, np.nan), where=mass > 0
        )
        for x in (q, label)
    )
    counts = np.bincount(index, minlength=bins)
    return Calibration(
        n=len(q),
        ece=float(np.nansum(mass * np.abs(mean_q - mean_p)) / mass.sum()),
        brier=float(np.average((q - label) ** 2, weights=weight_n)),
        log_loss=log_loss(q, label, weight=weight_n),
        label_entropy=float(np.average(_entropy(label), weights=weight_n)),
        bins=tuple(
            ReliabilityBin(b / bins, (b + 1) / bins, int(counts[b]), float(mean_q[b]), float(mean_p[b]))
            for b in range(bins)
        ),
    )


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Binary entropy in nats, exactly 0 at 0 and 1."""
    tiny = np.finfo(np.float64).tiny
    entropy: NDArray[np.float64] = -(p * np.log(np.maximum(p, tiny)) + (1 - p) * np.log(np.maximum(1 - p, tiny)))
    return entropy


def fit_temperature(margin: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """The temperature in [0.01, 100] whose sigmoid(margin / temperature) has the least log loss on the labels.

    Golden-section search over its logarithm (the loss is convex in 1 / temperature, hence unimodal); 1.0 where no
    margin is known or all are zero.
    """
    margin_n, label = np.asarray(margin, dtype=np.float64), np.asarray(p, dtype=np.float64)
    known = ~np.isnan(margin_n)
    if not np.any(margin_n[known]):
        return 1.0
    margin_n, label = margin_n[known], label[known]
    weight_n = None if weight is None else np.asarray(weight, dtype=np.float64)[known]

    def loss(log_t: float) -> float:
        return log_loss(sigmoid(margin_n / np.exp(log_t)), label, weight=weight_n)

    low, high, ratio = np.log(0.01), np.log(100.0), (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))
