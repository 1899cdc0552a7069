"""Bandits over categories of prompts, fed with mean |advantage|: SEC (arXiv:2505.14970) and DUMP (arXiv:2504.09710).

    SEC     Q <- (1 - rate) Q + rate mean |A|,  probabilities softmax(Q / temperature)
    DUMP    mean |A| over the last `window` rollouts + sqrt(2 ln(N + 1) / (n + 1)),  softmax(score / temperature);
            n the category's rollouts ever, N = max(1, sum of n)

SEC's released code also lets categories that were not sampled decay towards 0 (`decay_unseen`); the paper does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

RATE, WINDOW = 0.5, 300


class Arm(NamedTuple):
    """What is known of a category: SEC's value, and DUMP's window of (mean |A|, rollouts) with the count of all."""

    value: float = 0.0
    window: tuple[tuple[float, int], ...] = ()
    n: int = 0

    def observed(self, advantage: float, n: int, *, rate: float = RATE, size: int = WINDOW) -> Arm:
        """After n rollouts with this mean |A|."""
        window = (*self.window, (advantage, n))
        while len(window) > 1 and sum(count for _, count in window[1:]) >= size:
            window = window[1:]
        return Arm((1 - rate) * self.value + rate * advantage, window, self.n + n)

    def decayed(self, *, rate: float = RATE) -> Arm:
        """After a step in which the category was not sampled, as SEC's released code has it."""
        return self._replace(value=(1 - rate) * self.value)


def sec(arms: Mapping[str, Arm], *, temperature: float = 0.4) -> dict[str, float]:
    """Probability of each category."""
    return _softmax({name: arm.value for name, arm in arms.items()}, temperature)


def dump(arms: Mapping[str, Arm], *, temperature: float = 0.1) -> dict[str, float]:
    """Probability of each category; one that was never sampled has the largest bonus."""
    total = max(1, sum(arm.n for arm in arms.values()))
    scores = {}
    for name, arm in arms.items():
        seen = sum(n for _, n in arm.window)
        mean = sum(advantage * n for advantage, n in arm.window) / seen if seen else 0.0
        scores[name] = mean + math.sqrt(2 * math.log(total + 1) / (arm.n + 1))
    return _softmax(scores, temperature)


def _softmax(scores: Mapping[str, float], temperature: float) -> dict[str, float]:
    if not scores:
        return {}
    values = np.array(list(scores.values())) / temperature
    powers = np.exp(values - values.max())
    return dict(zip(scores, (powers / powers.sum()).tolist(), strict=True))
