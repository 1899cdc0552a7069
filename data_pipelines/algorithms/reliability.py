"""Reliability: vote shares in which each rater counts by agreement with the others on the same rows.

A rater's weight is max(0, 2 r - 1), r the rate of agreeing with the majority of the *other* votes (a coin weighs
nothing; rmkit.reliability.annotators). Who has fewer than two votes that can be compared is refused, or given the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipelines.algorithms.votes import Votes
from rmkit.reliability.annotators import Few, annotator_reliability


def posterior(votes: Votes, *, few: Few) -> NDArray[np.float64]:
    """[R, 3] weighed vote shares; NaN where no vote weighs anything. Raises DataError, see annotator_reliability."""
    inputs = [
        (str(row), votes.raters[who], answers)
        for row, who, answers in zip(votes.row, votes.rater, votes.verdict, strict=True)
    ]
    result = annotator_reliability(inputs, few=few)
    weight = np.array([result.weight(name) for name in votes.raters])[votes.rater]
    counts = np.bincount(votes.row * 3 + votes.verdict, weight, minlength=votes.n_rows * 3).reshape(-1, 3)
    total = counts.sum(1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0))
