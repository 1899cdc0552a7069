"""Majority: the share of votes for each side, a tie counting half for both. No rater is trusted more than another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipelines.algorithms.votes import Votes


def posterior(votes: Votes) -> NDArray[np.float64]:
    """[R, 3] vote shares; NaN where a row has no vote."""
    counts = votes.counts().astype(np.float64)
    total = counts.sum(1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0))
