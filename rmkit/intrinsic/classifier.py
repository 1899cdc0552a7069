"""The classifier: logistic regression on words, 1 where P(good) reaches the threshold, else 0.

P = sigma(w . x + b)      `steps` steps of gradient descent on all labels so far, with weight decay
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmkit.memory.memory import Embed, hashed_words, unit_length

Floats = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Classifier:
    """Labels are 0, 1 or shares between."""

    threshold: float = 0.5
    steps: int = 32
    learning_rate: float = 8.0
    weight_decay: float = 1e-3
    embed: Embed = hashed_words
    weights: Floats | None = None
    _features: list[Floats] = field(default_factory=list)
    _labels: list[float] = field(default_factory=list)

    def learn(self, captions: Sequence[str], labels: Sequence[float]) -> None:
        self._features += list(with_bias(self.embed(captions)))
        self._labels += labels
        x, y = np.stack(self._features), np.array(self._labels)
        w = np.zeros(x.shape[1]) if self.weights is None else self.weights
        for _ in range(self.steps):
            error = 1 / (1 + np.exp(-(x @ w))) - y
            w = w - self.learning_rate * (x.T @ error / len(y) + self.weight_decay * w)
        self.weights = w

    def probability(self, captions: Sequence[str]) -> Floats:
        """[n] P(good), 0 before anything was learned."""
        if self.weights is None or not captions:
            return np.zeros(len(captions))
        return np.asarray(1 / (1 + np.exp(-(with_bias(self.embed(captions)) @ self.weights))), np.float64)

    def predict(self, captions: Sequence[str]) -> Floats:
        return (self.probability(captions) >= self.threshold).astype(np.float64)


def with_bias(vectors: Floats) -> Floats:
    """Rows of length one, and a column of ones."""
    return np.column_stack([unit_length(vectors), np.ones(len(vectors))])
