"""PF-PPO: train the policy only on responses whose rewards can be trusted, by the strategy that measures best.

Of the N sampled responses of a prompt keep, by reward r:

    all      every one
    bon      the best
    br       the best and one random other
    bw       the best and the worst
    square   every one with weight r^2 / max r^2 over the batch (rewards centered by the caller)

Which strategy is best depends on where the reward model is reliable: on items with a true score, R^2 of the straight
line through the bin means (ten bins of equally many kept samples) of true score over reward decides, the highest wins.
BR's random choice is drawn once per group from the seed and the group's id, so a rollout that is reused keeps it.
`replay_weights` are the sampling odds of the paper's replay variant: 0.4 for the best, 0.1 for each other.

Policy filtration, arXiv:2409.06957 and its code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import ConfigError, DataError
from rmkit.reliability.label_weights import Flags, Floats, check_ids

Strategy = Literal["all", "bon", "br", "bw", "square"]
STRATEGIES: tuple[Strategy, ...] = ("all", "bon", "br", "bw", "square")
BINS = 10


def kept_weights(group_ids: Sequence[str], reward_PN: ArrayLike, *, strategy: Strategy, seed: int = 0) -> Floats:
    """[P, N] weights in [0, 1] of the responses; NaN rewards weigh 0. Ties go to the first position."""
    reward = np.asarray(reward_PN, dtype=np.float64)
    if reward.ndim != 2 or len(reward) != len(check_ids(group_ids)):
        raise DataError(f"{len(group_ids)} groups need rewards [{len(group_ids)}, N], got {list(reward.shape)}")
    known = ~np.isnan(reward)
    best = _spike(np.where(known, reward, -np.inf)) & known
    values: Floats
    match strategy:
        case "all":
            values = known.astype(np.float64)
        case "bon":
            values = best.astype(np.float64)
        case "br":
            values = (best | _random_other(group_ids, known & ~best, seed)).astype(np.float64)
        case "bw":
            values = (best | (_spike(np.where(known, -reward, -np.inf)) & known)).astype(np.float64)
        case "square":
            square = np.where(known, reward, 0.0) ** 2
            values = np.divide(square, max(float(square.max()), np.finfo(np.float64).tiny))
        case _:
            raise ConfigError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}")
    return values


def replay_weights(reward_PN: ArrayLike, *, best: float = 0.4, other: float = 0.1) -> Floats:
    """[P, N] sampling probabilities with these relative odds; NaN rewards are never drawn."""
    reward = np.asarray(reward_PN, dtype=np.float64)
    known = ~np.isnan(reward)
    odds = np.where(_spike(np.where(known, reward, -np.inf)), best, other) * known
    total = odds.sum(axis=1, keepdims=True)
    probability: Floats = np.divide(odds, total, out=np.zeros_like(odds), where=total > 0)
    return probability


def r_squared(reward: ArrayLike, truth: ArrayLike, weight: ArrayLike, *, bins: int = BINS) -> float:
    """R^2 of the line through the bin means of true score over reward, on samples with a positive weight.

    NaN with fewer than three bins to fill or where either side does not vary.
    """
    reward_m, truth_m, weight_m = (np.asarray(x, dtype=np.float64).ravel() for x in (reward, truth, weight))
    known = (weight_m > 0) & ~np.isnan(reward_m) & ~np.isnan(truth_m)
    if known.sum() < max(3, bins):
        return float("nan")
    order = np.flatnonzero(known)[np.argsort(reward_m[known], kind="stable")]
    parts = np.array_split(order, bins)
    x, y = (np.array([np.average(v[p], weights=weight_m[p]) for p in parts]) for v in (reward_m, truth_m))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def best_strategy(
    group_ids: Sequence[str],
    reward_PN: ArrayLike,
    truth_PN: ArrayLike,
    *,
    strategies: Sequence[Strategy] = STRATEGIES,
    seed: int = 0,
) -> tuple[Strategy, dict[Strategy, float]]:
    """The strategy with the highest R^2 on items with a true score, and every strategy's R^2.

    Raises DataError where none can be measured.
    """
    measured = {
        name: r_squared(reward_PN, truth_PN, kept_weights(group_ids, reward_PN, strategy=name, seed=seed))
        for name in strategies
    }
    known = [name for name in strategies if not np.isnan(measured[name])]
    if not known:
        raise DataError("R^2 cannot be measured: too few samples, or rewards or true scores do not vary")
    return max(known, key=lambda name: measured[name]), measured


def _spike(value_PN: Floats) -> Flags:
    """[P, N] where each row has its first maximum."""
    mask = np.zeros(value_PN.shape, dtype=bool)
    mask[np.arange(len(value_PN)), value_PN.argmax(axis=1)] = True
    return mask


def _random_other(group_ids: Sequence[str], others_PN: Flags, seed: int) -> Flags:
    mask = np.zeros(others_PN.shape, dtype=bool)
    for row, (group, others) in enumerate(zip(group_ids, others_PN, strict=True)):
        if len(places := np.flatnonzero(others)):
            drawn = int.from_bytes(hashlib.sha256(f"{seed} {group}".encode()).digest()[:8])
            mask[row, places[drawn % len(places)]] = True
    return mask
