"""Siblings far apart in score, by the rule that VeriRL trains its reward model with.

    a pair (i, j) where  r_i > high,  r_i > r_j + gap,  r_j > floor

A score of 0 is code that does not compile: it is no negative either. r is the label `children_mean` unless another rule
is named. `balance` are that paper's weights of samples by probability and reward (secondary description); a pair's is
its chosen side's, by the policy's prior of the step and r, over the pairs of a prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike

from rmkit.trees.rules import StepPair, label
from rmkit.trees.tree import Floats, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreGap:
    high: Annotated[float, "the chosen one's score lies above"] = 0.8
    gap: Annotated[float, "the scores lie further apart than this"] = 0.4
    floor: Annotated[float, "the rejected one's score lies above"] = 0.0
    value: Annotated[str, "label rule to go by"] = "children_mean"
    weight: Annotated[
        Literal["none", "alpha", "beta"],
        "of a pair in training: the larger of the two ratios, or the smaller",
    ] = "none"

    def siblings(self, tree: Tree) -> list[StepPair]:
        r = label(tree, self.value)
        places = [
            (i, j)
            for node in tree.nodes
            for i, j in permutations(node.children, 2)
            if not math.isnan(r[i] + r[j]) and r[i] > self.high and r[i] > r[j] + self.gap and r[j] > self.floor
        ]
        if self.weight == "none" or not places:
            return [StepPair(i, j) for i, j in places]
        prior = [tree.nodes[i].facts.prior for i, _ in places]
        unknown = any(map(math.isnan, prior))  # then probability says nothing, and reward decides
        alpha, beta = balance([1.0] * len(prior) if unknown else prior, [r[i] for i, _ in places])
        weights = alpha if self.weight == "alpha" else beta
        return [StepPair(i, j, weight=float(own)) for (i, j), own in zip(places, weights, strict=True)]


def balance(probability: ArrayLike, reward: ArrayLike, *, clip: float = 5.0) -> tuple[Floats, Floats]:
    """[N] alpha = max(P / mean P, R / mean R) and [N] beta, the smaller of the two; ratios are clipped to `clip`, and a
    ratio to a mean of 0 is 1."""
    ratios = []
    for values in (np.asarray(probability, dtype=np.float64), np.asarray(reward, dtype=np.float64)):
        average = float(values.mean())
        ratios.append(np.clip(values / average, 0.0, clip) if average else np.ones_like(values))
    return np.maximum(*ratios), np.minimum(*ratios)
