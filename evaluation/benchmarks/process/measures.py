"""Measures of step predictions with intervals over resampled problems, for one arm and for the difference of two.

log loss in nats and AUC over all labeled steps; F1 of first errors over solutions. AUC is recomputed in every resample
from the weighted counts of its score levels; the others from sums per problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.measures import draws
from rmkit.metrics.steps import NO_ERROR, first_error

Floats = NDArray[np.float64]

NAMES = ("log_loss", "auc", "f1")
RESAMPLES = 2000
_CLIP = 1e-6


@dataclass(frozen=True, slots=True)
class Arm:
    """Out-of-fold step probabilities per solution, and the predicted first errors."""

    steps: Sequence[Floats]
    predicted: Sequence[int]


def measures(arm: Arm, labels: Sequence[Floats], problem: NDArray[np.int64]) -> dict[str, object]:
    """Per measure its value and interval; for F1 also the two accuracies."""
    table = _Table(arm, labels, problem)
    spread = table.resampled()
    point = {name: float(values[0]) for name, values in table.of(np.ones((1, table.clusters))).items()}
    by_key: dict[str, Any] = {name: _with_interval(point[name], spread[name]) for name in NAMES}
    sums = table.sums.sum(axis=0)
    accuracies = {"error_accuracy": sums[2] / max(sums[3], 1), "correct_accuracy": sums[4] / max(sums[5], 1)}
    return by_key | {name: float(value) for name, value in accuracies.items()}


def compare(first: Arm, second: Arm, labels: Sequence[Floats], problem: NDArray[np.int64]) -> dict[str, object]:
    """First minus second per measure, paired: both arms are read on the same resampled problems."""
    tables = [_Table(arm, labels, problem) for arm in (first, second)]
    one = np.ones((1, tables[0].clusters))
    points, spreads = [table.of(one) for table in tables], [table.resampled() for table in tables]
    return {
        name: _with_interval(float(points[0][name][0] - points[1][name][0]), spreads[0][name] - spreads[1][name])
        for name in NAMES
    }


def _with_interval(value: float, spread: Floats) -> dict[str, object]:
    known = spread[~np.isnan(spread)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high)}


class _Table:
    """One arm as sums per problem [K, 6] (loss, steps, right and all erroneous, right and all correct solutions) and
    its steps by score level."""

    def __init__(self, arm: Arm, labels: Sequence[Floats], problem: NDArray[np.int64]) -> None:
        names, cluster = np.unique(problem, return_inverse=True)
        self.clusters = len(names)
        label = np.concatenate(labels)
        known = ~np.isnan(label)
        score, label = np.concatenate(arm.steps)[known], label[known]
        self.owner = np.repeat(cluster, [len(of) for of in labels])[known]
        _, self.level = np.unique(score, return_inverse=True)
        self.right = label >= 0.5
        q = np.clip(score, _CLIP, 1 - _CLIP)
        loss = -(label * np.log(q) + (1 - label) * np.log1p(-q))
        target = np.array([first_error(of.tolist()) for of in labels])
        hit, erroneous = np.asarray(arm.predicted) == target, target != NO_ERROR
        solution = [hit & erroneous, erroneous, hit & ~erroneous, ~erroneous]
        columns = [
            *(np.bincount(self.owner, weights=values, minlength=len(names)) for values in (loss, np.ones(len(loss)))),
            *(np.bincount(cluster, weights=values, minlength=len(names)) for values in solution),
        ]
        self.sums = np.stack(columns, axis=1)

    def resampled(self) -> dict[str, Floats]:
        """[RESAMPLES] values of every measure; the same draws for every arm on the same problems."""
        blocks = [self.of(weight) for weight in draws(self.clusters, RESAMPLES, seed=0)]
        return {name: np.concatenate([block[name] for block in blocks]) for name in NAMES}

    def of(self, weight_RK: Floats) -> dict[str, Floats]:
        """[R] values of every measure for R weightings of the problems."""
        with np.errstate(invalid="ignore", divide="ignore"):
            loss, steps, a, a_all, b, b_all = (weight_RK @ self.sums).T
            error, correct = a / a_all, b / b_all
            f1 = np.where(error + correct > 0, 2 * error * correct / (error + correct), 0.0)
            f1 = np.where(np.isnan(error + correct), np.nan, f1)
        return {"log_loss": loss / steps, "auc": np.array([self._auc(weight) for weight in weight_RK]), "f1": f1}

    def _auc(self, weight_K: Floats) -> float:
        weight = weight_K[self.owner]
        n = int(self.level.max()) + 1
        good = np.bincount(self.level, weights=weight * self.right, minlength=n)
        bad = np.bincount(self.level, weights=weight * ~self.right, minlength=n)
        total = good.sum() * bad.sum()
        return float((good * (bad.cumsum() - bad / 2)).sum() / total) if total > 0 else float("nan")
