"""Bradley-Terry utilities of one prompt's responses from the probabilities that one beats another.

    maximize  sum over judged pairs  votes (p log sigmoid(u_i - u_j) + (1 - p) log sigmoid(u_j - u_i)) - ridge |u|^2 / 2

The ridge makes unanimous verdicts finite and the mean of the utilities 0. Bradley & Terry 1952; the penalty is a normal
prior of precision `ridge` (Caron & Doucet 2012 discuss priors for it).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def utilities(
    p_first: Mapping[tuple[int, int], float], n: int, *, ridge: float = 0.1, votes: float = 1.0
) -> NDArray[np.float64] | None:
    """[n] utilities; `p_first` maps (i, j) to the probability that i is better. Differences are logits of winning.

    None where the judged pairs do not join all n: utilities of two parts cannot be compared.
    """
    if not _joined(p_first, n):
        return None
    pairs = np.array(list(p_first), dtype=np.int64).reshape(-1, 2)
    p = np.array(list(p_first.values()), dtype=np.float64)
    u = np.zeros(n)
    for _ in range(100):  # Newton; the objective is strictly concave
        win = 1 / (1 + np.exp(u[pairs[:, 1]] - u[pairs[:, 0]]))
        gradient, hessian = -ridge * u, -ridge * np.eye(n)
        np.add.at(gradient, pairs[:, 0], votes * (p - win))
        np.add.at(gradient, pairs[:, 1], -votes * (p - win))
        curvature = votes * win * (1 - win)
        for (i, j), c in zip(pairs, curvature, strict=True):
            hessian[[i, j], [i, j]] -= c
            hessian[[i, j], [j, i]] += c
        move = np.linalg.solve(hessian, gradient)
        u = u - move * min(1.0, 2.0 / max(np.abs(move).max(), 1e-12))
        if np.abs(move).max() < 1e-10:
            break
    return u


def _joined(pairs: Mapping[tuple[int, int], float], n: int) -> bool:
    group = list(range(n))
    for i, j in pairs:
        old, new = group[i], group[j]
        group = [new if one == old else one for one in group]
    return len(set(group)) == 1
