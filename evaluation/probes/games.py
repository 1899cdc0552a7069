"""Preferences as a game: two players name responses, and the one whose response is preferred wins.

    P[a, b]         probability that response a is preferred to b, 1/2 on the diagonal
    exploitability  max_a sum_b P[a, b] pi(b): how often the best answer to a mixture pi beats it; 1/2 at the least
    Nash weights    mirror descent towards a regularized equilibrium (Munos et al., Nash learning from human feedback,
                    arXiv:2312.00886, section 7): pi' ~ pi^(1 - eta tau) mu^(eta tau), pi <- pi' exp(eta P pi')
    cycle           responses each of which is preferred to the next, the last to the first

Where preferences go round no score agrees with them: whichever response Bradley-Terry puts first, another one beats it.
The last iterate is the equilibrium regularized towards mu with strength tau, so its exploitability lies a little over
1/2 (by tau log N at most, for a uniform mu). Steps must be small beside tau (eta < 2 tau / l^2, l at most about 0.32),
else the weights spiral outwards; the defaults are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from evaluation.registry.ratings import strengths
from rmkit.errors import DataError, UsageError
from rmkit.types import Candidates, RewardModel

Matrix = NDArray[np.float64]
TAU, ETA, STEPS = 0.05, 0.5, 2000


@dataclass(frozen=True, slots=True)
class Game:
    """A pool's preference matrix [N, N] and what `compare` said of both orders: the mean swap gap, unscored pairs."""

    preference: Matrix
    swap_gap: float
    unscored: tuple[tuple[int, int], ...] = ()


def preference_matrix(model: RewardModel, pool: Candidates, *, both_orders: bool | None = None) -> Game:
    """Every pair of the pool's completions compared; P[a, b] = (f(a, b) + 1 - f(b, a)) / 2.

    Models that score points are asked once a pair, others in both orders. A pair that could not be compared is NaN in
    the matrix and named; a game with one cannot be solved.
    """
    n = len(pool.completions)
    both = not model.info.pointwise if both_orders is None else both_orders
    order = list(permutations(range(n), 2)) if both else list(combinations(range(n), 2))
    requests = [pool.of(pool.completions[a], pool.completions[b]) for a, b in order]
    values = np.full((n, n), np.nan)
    for (a, b), answer in zip(order, model.compare(requests) if requests else [], strict=True):
        values[a, b] = answer.p_first
    if not both:
        values = np.where(np.isnan(values), 1 - values.T, values)
    matrix = (values + 1 - values.T) / 2
    np.fill_diagonal(matrix, 0.5)
    gap = np.abs(values + values.T - 1)[np.triu_indices(n, 1)]
    lost = tuple((int(a), int(b)) for a, b in np.argwhere(np.isnan(matrix)) if a < b)
    return Game(matrix, float(np.nanmean(gap)) if both and not np.isnan(gap).all() else 0.0, lost)


def nash_weights(
    preference: Matrix, *, tau: float = TAU, eta: float = ETA, steps: int = STEPS, towards: Matrix | None = None
) -> Matrix:
    """[N] the last iterate from `towards` (default uniform), which also regularizes.

    Raises DataError for a matrix with holes or whose halves contradict each other, UsageError for eta * tau over 1.
    """
    _check(preference)
    if not (tau >= 0 and eta > 0 and eta * tau <= 1):
        raise UsageError(f"needs tau >= 0, eta > 0 and eta * tau <= 1, got tau {tau} and eta {eta}")
    n = len(preference)
    mu = np.full(n, 1 / n) if towards is None else towards / towards.sum()
    pi = mu.copy()
    for _ in range(steps):
        mixed = _normalized((1 - eta * tau) * np.log(pi) + eta * tau * np.log(mu))
        pi = _normalized(np.log(mixed) + eta * (preference @ mixed))
    return pi


def _normalized(log_weight: Matrix) -> Matrix:
    weight = np.exp(log_weight - log_weight.max())
    result: Matrix = np.maximum(weight / weight.sum(), 1e-300)
    return result


def exploitability(preference: Matrix, weights: Matrix) -> float:
    """How often the best single response beats the mixture, from 1/2 (nobody does better than even)."""
    return float((preference @ weights).max())


def bradley_terry_scores(preference: Matrix) -> Matrix:
    """[N] log-strengths, mean 0, that fit the probabilities best (maximum likelihood).

    Raises DataError where some responses always win against all others, for then their strength is without bound.
    """
    _check(preference)
    return strengths(preference, prior=0)


def three_cycles(preference: Matrix) -> list[tuple[int, int, int]]:
    """Triples (a, b, c) in which a is preferred to b, b to c and c to a, strictly. Without ties there is a cycle
    exactly when there is one of three, so that none here means an order exists."""
    beats = preference > 0.5
    results = []
    for a, b, c in combinations(range(len(preference)), 3):
        if beats[a, b] and beats[b, c] and beats[c, a]:
            results.append((a, b, c))
        elif beats[b, a] and beats[c, b] and beats[a, c]:
            results.append((a, c, b))
    return results


def solution(preference: Matrix) -> dict[str, object]:
    """Cycles, Nash weights, and how exploitable they and Bradley-Terry's best response are, JSON-ready."""
    weights = nash_weights(preference)
    scores = bradley_terry_scores(np.clip(preference, 1e-6, 1 - 1e-6))
    best, soft = np.eye(len(scores))[scores.argmax()], np.exp(scores) / np.exp(scores).sum()
    return {
        "cycles": [list(cycle) for cycle in three_cycles(preference)],
        "nash": weights.tolist(),
        "bradley_terry": scores.tolist(),
        "exploitability": {
            "nash": exploitability(preference, weights),
            "bradley_terry_best": exploitability(preference, best),
            "bradley_terry_softmax": exploitability(preference, soft),
        },
    }


def _check(preference: Matrix) -> None:
    if preference.ndim != 2 or preference.shape[0] != preference.shape[1] or not len(preference):
        raise DataError(f"a preference matrix is square, got the shape {preference.shape}")
    if np.isnan(preference).any():
        raise DataError(f"{int(np.isnan(preference).sum())} comparisons are missing; ask again or drop those responses")
    if preference.min() < 0 or preference.max() > 1 or np.abs(preference + preference.T - 1).max() > 1e-9:
        raise DataError("probabilities lie in [0, 1], and P[a, b] + P[b, a] must be 1")
