"""Progress under a stronger prover: the best of K answers of the same policy.

    Q_mu = 1 - C(n - k, K) / C(n, K)    of n samples k are right; unbiased, where n >= K
    Q_mu = 1 - (1 - k / n)^K            where n < K: biased low
    A = Q_mu(s, a) - Q_mu(parent);  score = Q_pi + alpha A

Process advantage verifiers, Setlur et al., arXiv:2410.08146; alpha and the number of rollouts depend on the policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.trees.tree import Floats, Tree, mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ProverProgress:
    """Needs outcomes that are right or wrong: from `right` on they are right."""

    k: Annotated[int, "answers of which the prover takes the best"] = 4
    alpha: Annotated[float, "weight of the advantage beside the policy's own value"] = 1.0
    gives: Annotated[Literal["score", "advantage", "prover"], "Q + alpha A, A alone, or the prover's value"] = "score"
    right: Annotated[float, "an outcome of at least this is right"] = 0.5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"prover_progress: k must be at least 1, got {self.k}")

    def label(self, tree: Tree) -> Floats:
        right = [[float(value >= self.right) for value in node.drawn] for node in tree.nodes]
        prover = np.array([best_of(len(own), int(sum(own)), self.k) for own in right])
        if self.gives == "prover":
            return prover
        advantage = np.array([math.nan, *(prover[at] - prover[tree.nodes[at].parent] for at in range(1, len(tree)))])
        if self.gives == "advantage":
            return advantage
        return np.array([mean(own) for own in right]) + self.alpha * advantage


def best_of(n: int, k: int, best: int) -> float:
    """The chance that one of `best` answers is right, from k right ones of n; NaN without any sample."""
    if n == 0:
        return math.nan
    if n >= best:
        return 1 - math.comb(n - k, best) / math.comb(n, best)
    return 1 - (1 - k / n) ** best
