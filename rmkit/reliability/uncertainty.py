"""Uncertainty of a pair's order from T dropout passes (UPO's estimator, step 4).

With p_t the probability in pass t that the order is right, natural logarithms and 1e-10 inside them:

    H(p)  = -p ln(p + 1e-10) - (1 - p) ln(1 - p + 1e-10)
    BALD  = max(0, H(mean_t p_t) - mean_t H(p_t))          in [0, ln 2 - 1e-10]: what the passes disagree about

Sun et al., arXiv:2409.11212; BALD: Houlsby et al., arXiv:1112.5745. The passes may come from `pair_estimator` (frozen
features) or from any model that is scored T times with dropout switched on (p_t = sigmoid(margin_t)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit.errors import DataError
from rmkit.metrics.calibration import sigmoid
from rmkit.reliability.label_weights import Floats
from rmkit.types import Score

LARGEST_BALD = float(np.log(2))
_INSIDE_LOG = 1e-10


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """`passes` [T, n]: the probability in each pass that the order is right; NaN where the pair was not scored."""

    passes: Floats

    def __post_init__(self) -> None:
        if self.passes.ndim != 2 or len(self.passes) < 2:
            raise DataError(f"uncertainty takes two passes or more over the same pairs, got shape {self.passes.shape}")
        with np.errstate(invalid="ignore"):
            if ((self.passes < 0) | (self.passes > 1)).any():
                raise DataError("passes are probabilities in [0, 1]; turn margins into them with from_margins")

    @property
    def mean(self) -> Floats:
        """[n] mean probability that the order is right."""
        values: Floats = self.passes.mean(axis=0)
        return values

    @property
    def variance(self) -> Floats:
        """[n] variance over the passes (divided by T)."""
        values: Floats = self.passes.var(axis=0)
        return values

    @property
    def bald(self) -> Floats:
        """[n] mutual information between order and dropped units, in nats."""
        values: Floats = np.maximum(0.0, _entropy(self.mean) - _entropy(self.passes).mean(axis=0))
        return values

    @property
    def vote(self) -> Floats:
        """[n] share of the passes that find the order right; an undecided pass counts one half."""
        votes: Floats = (np.sign(self.passes - 0.5).mean(axis=0) + 1) / 2
        return votes

    def evidence(self) -> Mapping[str, NDArray[Any]]:
        """Everything to record per pair, the T probabilities included ([n, T])."""
        return {
            "passes": self.passes.T,
            "mean_p": self.mean,
            "variance": self.variance,
            "bald": self.bald,
            "vote": self.vote,
        }


def from_margins(margin_Tn: ArrayLike) -> Uncertainty:
    """From margins [T, n] of a reward model scored T times with dropout on, by the Bradley-Terry link.

    Raises DataError where all passes are the same: then nothing was dropped.
    """
    margin = np.asarray(margin_Tn, dtype=np.float64)
    if (
        margin.ndim == 2
        and len(margin) > 1
        and np.array_equal(margin, margin[:1].repeat(len(margin), axis=0), equal_nan=True)
    ):
        raise DataError(
            "all dropout passes gave the same margins: dropout is not active (adapters, eval mode, rate 0?)"
        )
    return Uncertainty(sigmoid(margin))


def from_scores(draws: Sequence[Sequence[Sequence[Score]]]) -> Uncertainty:
    """From T passes over pairs, [T][n][2] scores on a logit scale, the preferred response first: what
    `ModelDropout.draws` gives. A pair with an unscored response is NaN."""
    return from_margins([[first.value - second.value for first, second in one] for one in draws])


def _entropy(p: Floats) -> Floats:
    values: Floats = -p * np.log(p + _INSIDE_LOG) - (1 - p) * np.log(1 - p + _INSIDE_LOG)
    return values
