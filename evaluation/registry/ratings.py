"""Bradley-Terry ratings of models that answered the same items.

Two models play a game on every credit that both earned in the cells they are compared on: the one that earned more
wins, equal credit is half a win for each (as chat arenas count ties). Strengths s are those of maximum likelihood,

    P(i beats j) = 1 / (1 + exp(s_j - s_i))        sum_j wins_ij = sum_j games_ij P(i beats j) for every i

found by Newton's method, whose steps are halved until the likelihood grows. Half a game lost and half a game won
against every opponent is added, so that a model that wins everything keeps a finite rating. Reported on the Elo scale
with mean 1000: 400 points are odds of ten to one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.scoring.paired import scored_credits
from evaluation.suites.items import Credit
from rmkit.errors import DataError

MEAN, POINTS, PRIOR = 1000.0, 400 / math.log(10), 0.5
_SMALL = 1e-9  # the last step, and wins beyond expectation as a share of the games

Matrix = NDArray[np.float64]


def games(tables: Sequence[Sequence[Credit]], cells: Collection[str]) -> Matrix:
    """[M, M] wins of row over column, from the credits of M models on the same suite in `cells`.

    `cells` are those of one measure: a suite also keeps cells that show the same comparisons in another way, or that
    no model can change (people's agreement with each other), and those would count twice or as draws.
    """
    earned = [
        {key: credit.earned for key, credit in scored_credits(table).items() if credit.cell in cells}
        for table in tables
    ]
    wins = np.zeros((len(tables), len(tables)))
    for i, mine in enumerate(earned):
        for j in range(i + 1, len(earned)):
            for key in mine.keys() & earned[j].keys():
                outcome = 0.5 + 0.5 * float(np.sign(mine[key] - earned[j][key]))
                wins[i, j] += outcome
                wins[j, i] += 1 - outcome
    return wins


def strengths(wins: ArrayLike, *, prior: float = PRIOR, steps: int = 200) -> Matrix:
    """[M] natural logarithms of the strengths with mean 0, from wins [M, M] (row over column); NaN without a game.

    Raises DataError where no strengths fit: not every model can be reached from every other one over games that were
    won (Ford 1957), or the search has not converged within `steps`.
    """
    won = np.array(wins, dtype=np.float64)
    np.fill_diagonal(won, 0.0)
    won += prior * ((won + won.T) > 0)
    has_played = (won + won.T).any(axis=0)
    log = np.full(len(won), np.nan)
    if has_played.any():
        log[has_played] = _newton(won[np.ix_(has_played, has_played)], steps)
    return log


def _newton(won: Matrix, steps: int) -> Matrix:
    _check_connected(won)
    played, log = won + won.T, np.zeros(len(won))
    moved = math.inf
    for _ in range(steps):
        p = _expected(log)
        gradient = (won - played * p).sum(axis=1)
        information = -(played * p * (1 - p))
        np.fill_diagonal(information, -information.sum(axis=1))
        # Strengths are known up to a constant: a constant matrix makes the information invertible and keeps the mean.
        step = np.linalg.solve(information + np.trace(information) / len(won) ** 2, gradient)
        step -= step.mean()
        while _likelihood(won, log + step) < _likelihood(won, log) and np.abs(step).max() > _SMALL:
            step /= 2
        log = log + step
        moved = float(np.abs(step).max())
        if moved < _SMALL and np.abs(gradient).max() < _SMALL * played.sum():
            return log
    raise DataError(
        f"the strengths have not converged after {steps} steps: the last one moved one by {moved:.1e}; "
        "some players win or lose nearly always, add games between them"
    )


def _check_connected(won: Matrix) -> None:
    from scipy.sparse.csgraph import connected_components

    groups, group_of = connected_components(won > 0, directed=True, connection="strong")
    if groups > 1:
        sizes = ", ".join(str(size) for size in sorted(np.bincount(group_of).tolist(), reverse=True))
        raise DataError(
            f"{len(won)} players fall into {groups} groups ({sizes}) that no chain of won games joins both ways, so "
            "that strengths between them are without bound; compare them on more items that they share"
        )


def _expected(log: Matrix) -> Matrix:
    """[M, M] P(row beats column)."""
    return np.asarray(1 / (1 + np.exp(log[None, :] - log[:, None])))


def _likelihood(won: Matrix, log: Matrix) -> float:
    return -float((won * np.logaddexp(0.0, log[None, :] - log[:, None])).sum())


def elo(wins: ArrayLike) -> Matrix:
    """[M] ratings on the Elo scale. Raises DataError where `strengths` does."""
    rating: Matrix = MEAN + POINTS * strengths(wins)
    return rating
