"""Several models' rewards as one: mean, worst case, or mean less disagreement. A plain rival of peer review.

Every model's rewards are first standardized to mean 0 and deviation 1 (over the training responses); then

    mean   mean_k r_k
    wco    min_k r_k                            worst-case optimization
    uwo    mean_k r_k - penalty * var_k r_k     uncertainty-weighted optimization, variance over the models (1 / K)

Coste et al., Reward model ensembles help mitigate overoptimization, arXiv:2310.02743. Penalty 0.5 by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import ConfigError, DataError
from rmkit.reliability.label_weights import Floats

Combination = Literal["mean", "wco", "uwo"]


@dataclass(frozen=True, slots=True)
class RewardScale:
    """`mean` and `std` [K] of each model's rewards on reference responses."""

    mean: Floats
    std: Floats

    def standardized(self, reward_Km: ArrayLike) -> Floats:
        """[K, m] rewards in units of each model's own deviation."""
        reward = np.asarray(reward_Km, dtype=np.float64)
        return (reward - self.mean[:, None]) / self.std[:, None]


def reward_scale(reward_Km: ArrayLike) -> RewardScale:
    """The scale of K models from their rewards on the same m responses. Raises DataError where a model is constant."""
    reward = np.asarray(reward_Km, dtype=np.float64)
    mean, std = np.nanmean(reward, axis=1), np.nanstd(reward, axis=1)
    if not (std > 0).all():
        raise DataError(f"model {int(np.argmin(std > 0))} gives every response the same reward; it cannot be combined")
    return RewardScale(mean, std)


def combine(standardized_Km: ArrayLike, *, how: Combination = "mean", penalty: float = 0.5) -> Floats:
    """[m] one reward per response."""
    reward = np.asarray(standardized_Km, dtype=np.float64)
    match how:
        case "mean":
            combined: Floats = reward.mean(axis=0)
        case "wco":
            combined = reward.min(axis=0)
        case "uwo":
            combined = reward.mean(axis=0) - penalty * reward.var(axis=0)
        case _:
            raise ConfigError(f"how: expected mean, wco or uwo, got {how!r}")
    return combined
