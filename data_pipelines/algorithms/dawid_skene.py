"""Dawid-Skene: every rater has a confusion matrix, every row a true verdict, both found by expectation-maximization.

Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979. With T_iz the
probability that row i truly is z, pi the share of each verdict and theta_jzl the probability that rater j says l about
a row that is z:

    M   pi_z = mean_i T_iz          theta_jzl = (sum_i T_iz [j said l about i] + s thetabar_zl) / (... summed over l)
    E   T_iz ~ pi_z prod_(j, l said about i) theta_jzl

started from the vote shares. `s` (default 4) pseudo-votes pull a rater with few votes towards the average rater
thetabar; s = 0 is the original.

Symmetric (default): "first" and "second" only name the order of two content hashes, so any difference between the two
is noise, and fitting it costs accuracy where a rater has few votes. Each M-step therefore averages the counts with
their mirror image (first <-> second in truth and verdict): a rater is left with an accuracy on clear rows, a tie rate
on them, and a tie rate on true ties.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipelines.algorithms.majority import posterior as vote_shares
from data_pipelines.algorithms.votes import Votes

MIRROR = np.array([1, 0, 2])
_TINY = 1e-12


def fit(
    votes: Votes,
    *,
    weight_R: NDArray[np.int64] | None = None,
    symmetric: bool = True,
    smoothing: float = 4.0,
    iterations: int = 200,
    tolerance: float = 1e-7,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prior pi [3] and confusion theta [raters, truth 3, verdict 3], learned from these votes.

    `weight_R` says how many rows each row stands for (see `Votes.distinct`); None is 1.
    """
    weight_R = np.ones(votes.n_rows, dtype=np.int64) if weight_R is None else weight_R
    rows = np.unique(votes.row)
    truth: NDArray[np.float64] = np.nan_to_num(vote_shares(votes))
    for _ in range(iterations):
        prior, confusion = _maximize(votes, truth, rows, weight_R, symmetric=symmetric, smoothing=smoothing)
        before, truth = truth, posterior(votes, prior, confusion)
        if np.abs(truth[rows] - before[rows]).max(initial=0) < tolerance:
            break
    return _maximize(votes, truth, rows, weight_R, symmetric=symmetric, smoothing=smoothing)


def accuracy_of_draws(
    votes: Votes,
    weight_DR: NDArray[np.int64],
    *,
    smoothing: float = 4.0,
    iterations: int = 200,
    tolerance: float = 1e-7,
) -> NDArray[np.float64]:
    """[draws, raters] `accuracy` of a symmetric `fit` for each row of weights, all fitted side by side: a hundred fits
    of a few hundred distinct rows are then a few matrix products a round. Every row must have a vote.
    """
    from scipy.sparse import csr_array

    D, J = len(weight_DR), len(votes.raters)
    said = csr_array((np.ones(len(votes.row)), (votes.row, 3 * votes.rater + votes.verdict)), (votes.n_rows, 3 * J))
    weight_RD = weight_DR.T[:, :, None]

    def maximize(truth_RDz: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weighted = truth_RDz * weight_RD
        counts = (said.T @ weighted.reshape(-1, 3 * D)).reshape(J, 3, D, 3).transpose(2, 0, 3, 1)
        prior = weighted.sum(0) / weight_RD.sum(0)
        counts, prior = (counts + counts[:, :, MIRROR][..., MIRROR]) / 2, (prior + prior[:, MIRROR]) / 2
        pooled = counts.sum(1, keepdims=True)
        counts = counts + smoothing * pooled / (pooled.sum(3, keepdims=True) + _TINY)
        return prior, (counts + _TINY) / (counts + _TINY).sum(3, keepdims=True)

    truth = np.repeat(np.nan_to_num(vote_shares(votes))[:, None], D, axis=1)
    for _ in range(iterations):
        prior, confusion_DJzl = maximize(truth)
        log_answers = np.log(confusion_DJzl + _TINY).transpose(1, 3, 0, 2).reshape(3 * J, 3 * D)
        log = np.log(prior + _TINY) + (said @ log_answers).reshape(-1, D, 3)
        before, truth = truth, np.exp(log - log.max(2, keepdims=True))
        truth /= truth.sum(2, keepdims=True)
        if np.abs(truth - before).max(initial=0) < tolerance:
            break
    prior, confusion_DJzl = maximize(truth)
    return np.asarray(np.einsum("dz,djzz->dj", prior, confusion_DJzl))


def posterior(votes: Votes, prior: NDArray[np.float64], confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R, 3] probabilities of each true verdict; the prior where a row has no vote."""
    log = np.tile(np.log(prior + _TINY), (votes.n_rows, 1))
    for z in range(3):
        answers = np.log(confusion[votes.rater, z, votes.verdict] + _TINY)
        log[:, z] += np.bincount(votes.row, answers, minlength=votes.n_rows)
    unnormalized = np.exp(log - log.max(1, keepdims=True))
    return np.asarray(unnormalized / unnormalized.sum(1, keepdims=True))


def _maximize(
    votes: Votes,
    truth: NDArray[np.float64],
    rows: NDArray[np.int64],
    weight_R: NDArray[np.int64],
    *,
    symmetric: bool,
    smoothing: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cell = votes.rater * 3 + votes.verdict
    size = len(votes.raters) * 3
    weighted = truth * weight_R[:, None]
    answers = [np.bincount(cell, weighted[votes.row, z], minlength=size).reshape(-1, 3) for z in range(3)]
    counts: NDArray[np.float64] = np.stack(answers, axis=1).astype(np.float64)
    prior = np.average(truth[rows], axis=0, weights=weight_R[rows])
    if symmetric:
        counts = (counts + counts[:, MIRROR][:, :, MIRROR]) / 2
        prior = (prior + prior[MIRROR]) / 2
    pooled = counts.sum(0)
    counts = counts + smoothing * pooled / (pooled.sum(1, keepdims=True) + _TINY)
    return prior, (counts + _TINY) / (counts + _TINY).sum(2, keepdims=True)


def accuracy(prior: NDArray[np.float64], confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """[raters] probability that a rater's verdict is the true one, over the prior of verdicts."""
    return np.asarray(np.einsum("z,jzz->j", prior, confusion))
