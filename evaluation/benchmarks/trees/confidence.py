"""Step pairs with the confidence of visits against the same pairs without, under planted noise.

Two siblings have utilities that are linear in their features; a search gives both together `visits` rollouts, more of
them to the one that seems better, and Q is the mean of what came out of each. The sibling of the larger Q is chosen. A
logistic model of the difference of features learns from the pairs with their soft labels, or as if all were certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmkit.trees.rules import siblings
from rmkit.trees.tree import Builder, Facts

Floats = NDArray[np.float64]
FEATURES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """Accuracy on clean pairs: means over seeds, lowest and highest difference; `wrong` is the share in training."""

    visits: int
    weighted: float
    unweighted: float
    least: float
    most: float
    wrong: float


def confidence_experiment(*, visits: int, seeds: int, pairs: int = 400) -> Confidence:
    """Means over the seeds."""
    results = np.array([_run(visits, seed, pairs) for seed in range(seeds)])
    difference = results[:, 0] - results[:, 1]
    weighted, unweighted, wrong = results.mean(axis=0).tolist()
    return Confidence(
        visits=visits,
        weighted=weighted,
        unweighted=unweighted,
        least=float(difference.min()),
        most=float(difference.max()),
        wrong=wrong,
    )


def _run(visits: int, seed: int, pairs: int) -> tuple[float, float, float]:
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=FEATURES) / np.sqrt(FEATURES)
    inputs: list[Floats] = []
    soft: list[float] = []
    wrong: list[bool] = []
    while len(inputs) < pairs:
        features = draw.normal(size=(2, FEATURES))
        utility = features @ truth
        rate = 1 / (1 + np.exp(-utility))
        share = 1 / (1 + np.exp(-2 * (utility[0] - utility[1]) - draw.normal(0, 1)))
        first = int(np.clip(draw.binomial(visits, share), 1, visits - 1))
        counts = (first, visits - first)
        builder = Builder()
        for name, n, success in zip("ab", counts, rate, strict=True):
            builder.mark((name,), Facts(visits=n, q=draw.binomial(n, success) / n))
        ordered = siblings(builder.tree(), "by_value")
        if not ordered:
            continue
        chosen = ordered[0].chosen - 1
        inputs.append(features[chosen] - features[1 - chosen])
        soft.append(ordered[0].p)
        wrong.append(bool(utility[chosen] < utility[1 - chosen]))
    test = draw.normal(size=(4000, FEATURES))
    right = test @ truth > 0
    x = np.array(inputs)
    accuracies = [
        float((((test @ _fitted(x, target)) > 0) == right).mean()) for target in (np.array(soft), np.ones(len(x)))
    ]
    return accuracies[0], accuracies[1], float(np.mean(wrong))


def _fitted(x: Floats, target: Floats, *, steps: int = 400, decay: float = 1e-2) -> Floats:
    """Logistic regression without an intercept, by gradient descent."""
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ weights))
        weights -= 0.5 * (x.T @ (p - target) / len(x) + decay * weights)
    return weights
