"""The ranker: a linear reward by Bradley-Terry from pairs of captions, scaled by its own running mean and deviation.

    P(i above j) = sigma(w . (x_i - x_j))      labels: 1 i is better, 0 j is, 0.5 a tie
    reward       = (w . x - mean) / deviation  over all that it was asked about so far

A pair is two captions with a line break between them (`paired`); what is asked about is single captions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import DataError
from rmkit.memory.memory import Embed, hashed_words, unit_length

Floats = NDArray[np.float64]


def paired(first: str, second: str) -> str:
    """Two captions as one line of a stream; line breaks within them become blanks."""
    return "\n".join(" ".join(one.split("\n")) for one in (first, second))


@dataclass(slots=True, kw_only=True)
class Ranker:
    steps: int = 32
    learning_rate: float = 8.0
    weight_decay: float = 1e-3
    embed: Embed = hashed_words
    weights: Floats | None = None
    _differences: list[Floats] = field(default_factory=list)
    _labels: list[float] = field(default_factory=list)
    _n: int = 0
    _mean: float = 0.0
    _squares: float = 0.0

    def learn(self, captions: Sequence[str], labels: Sequence[float]) -> None:
        """Raises DataError for a line that is no pair."""
        pairs = [caption.split("\n") for caption in captions]
        if any(len(pair) != 2 for pair in pairs):
            raise DataError("the ranker learns from pairs of captions; make them by `paired`")
        first, second = (unit_length(self.embed([pair[at] for pair in pairs])) for at in (0, 1))
        self._differences += list(first - second)
        self._labels += labels
        x, y = np.stack(self._differences), np.array(self._labels)
        w = np.zeros(x.shape[1]) if self.weights is None else self.weights
        for _ in range(self.steps):
            error = 1 / (1 + np.exp(-(x @ w))) - y
            w = w - self.learning_rate * (x.T @ error / len(y) + self.weight_decay * w)
        self.weights = w

    def predict(self, captions: Sequence[str]) -> Floats:
        if self.weights is None or not captions:
            return np.zeros(len(captions))
        raw = unit_length(self.embed(captions)) @ self.weights
        for value in raw:  # Welford
            self._n += 1
            change = value - self._mean
            self._mean += change / self._n
            self._squares += change * (value - self._mean)
        deviation = math.sqrt(self._squares / self._n)
        return np.asarray((raw - self._mean) / (deviation or 1.0), np.float64)
