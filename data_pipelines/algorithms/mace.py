"""MACE: a rater either knows the answer or spams, and the share of knowing is the rater's competence.

Hovy, Berg-Kirkpatrick, Vaswani and Hovy, "Learning whom to trust with MACE", 2013. Rater j knows with probability
c_j and then says the truth, else draws from a strategy xi_j over verdicts: theta_jzl = c_j [l = z] + (1 - c_j) xi_jl,
and the truth has a flat prior. With the expected counts K_j (knew), G_j (spammed) and S_jl (spammed and said l):

    variational  c_j = exp(psi(K_j + a) - psi(K_j + G_j + 2 a)), 1 - c_j with G_j, and
                 xi_jl = exp(psi(S_jl + d) - psi(sum_m S_jm + 3 d)): Beta(a = 0.5) and Dirichlet(d = 10) as in the
                 paper, psi the digamma function. These weights add up to less than 1, and enter the E-step as they are.
    EM           the counts plus 0.01 / 3, normalized (the smoothing of the authors' code)

Ours: it starts from the vote shares instead of random restarts, so that the result is deterministic, and runs until the
truth stands still. `symmetric` (default; False is the paper's) averages S_j over first and second, whose order means
nothing (see dawid_skene).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from data_pipelines.algorithms.dawid_skene import MIRROR, posterior
from data_pipelines.algorithms.majority import posterior as vote_shares
from data_pipelines.algorithms.votes import Votes

_FLAT = np.full(3, 1 / 3)
_SMOOTHING = 0.01 / 3
_KNOWING_PRIOR, _STRATEGY_PRIOR = 0.5, 10.0


def fit(
    votes: Votes, *, symmetric: bool = True, variational: bool = True, iterations: int = 1000, tolerance: float = 1e-7
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Prior [3], confusion [raters, 3, 3] and competence [raters], learned from these votes.

    The confusion is what `posterior` multiplies; variational, its rows add up to less than 1. The competence is the
    mean of its Beta distribution, or the estimate of EM.
    """
    n = len(votes.raters)
    truth: NDArray[np.float64] = np.nan_to_num(vote_shares(votes))
    knows, spams, strategy = np.full(n, 0.5), np.full(n, 0.5), np.full((n, 3), 1 / 3)
    knew_J = spammed_J = np.zeros(n)
    for _ in range(iterations):
        before = truth
        knew_J, spammed_J, verdicts_J3 = _counts(votes, truth, knows, spams, strategy, symmetric)
        if variational:
            knows, spams = _expected(np.stack([knew_J, spammed_J], 1), _KNOWING_PRIOR).T
            strategy = _expected(verdicts_J3, _STRATEGY_PRIOR)
        else:
            knows, spams = _normalized(np.stack([knew_J, spammed_J], 1)).T
            strategy = _normalized(verdicts_J3)
        truth = posterior(votes, _FLAT, _confusion(knows, spams, strategy))
        if np.abs(truth - before).max(initial=0) < tolerance:
            break
    prior = _KNOWING_PRIOR if variational else _SMOOTHING
    competence = (knew_J + prior) / (knew_J + spammed_J + 2 * prior)
    return _FLAT, _confusion(knows, spams, strategy), competence


def _counts(
    votes: Votes,
    truth: NDArray[np.float64],
    knows: NDArray[np.float64],
    spams: NDArray[np.float64],
    strategy: NDArray[np.float64],
    symmetric: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Expected votes [raters] with knowledge, without, and [raters, 3] those without by verdict."""
    n = len(votes.raters)
    right = truth[votes.row, votes.verdict]  # a wrong vote was certainly spam; a right one may have been knowledge
    know, spam = knows[votes.rater], (spams[:, None] * strategy)[votes.rater, votes.verdict]
    knew = right * know / (know + spam + 1e-300)
    answers = np.bincount(votes.rater * 3 + votes.verdict, 1 - knew, minlength=n * 3).reshape(n, 3).astype(np.float64)
    if symmetric:
        answers = (answers + answers[:, MIRROR]) / 2
    return np.bincount(votes.rater, knew, minlength=n).astype(np.float64), answers.sum(1), answers


def _expected(count: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """[n, k] exp E[log p] of Dirichlet distributions with these counts and this prior."""
    return np.asarray(np.exp(digamma(count + prior) - digamma((count + prior).sum(1, keepdims=True))))


def _normalized(count: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((count + _SMOOTHING) / (count + _SMOOTHING).sum(1, keepdims=True))


def _confusion(
    knows: NDArray[np.float64], spams: NDArray[np.float64], strategy: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(knows[:, None, None] * np.eye(3) + spams[:, None, None] * strategy[:, None, :])
