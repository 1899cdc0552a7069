"""Which items to label next: each strategy is a small function from what is known to one score an item, higher first.

A score decides only the order; `weights` turns it into drawing weights, so that every strategy keeps known propensities
(see `order`). Axes: n items of the pool, K members of an ensemble of reward models, D width of a feature.

    random        no preference: what every other one is compared with
    uncertainty   entropy of the mean win probability (Lewis and Gale 1994)
    disagreement  mutual information of label and member, BALD (Houlsby et al. 2011)
    model_change  expected gradient length of the log-loss, 2 p (1 - p) |x| (Settles, Craven and Ray 2008)
    mislabel      how surely the models contradict the label there is: for a second look, not for new items
    coverage      distance to the nearest item labeled or chosen so far: k-center greedy (Sener and Savarese 2018)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labeling_ui.projects.definition import Strategy
from rmkit.errors import ConfigError, UsageError

Floats = NDArray[np.float64]

LEARNING: tuple[Strategy, ...] = ("uncertainty", "disagreement", "model_change", "coverage")
SHARPNESS = 8.0


@dataclass(frozen=True, slots=True)
class Pool:
    """`p` [K, n] win probabilities of the first response by member and item; `features` [n, D] first minus second.

    `labeled` [n] marks what has a label; `label` [n] is it as the probability that the first is better, NaN without.
    """

    p: Floats
    features: Floats
    labeled: NDArray[np.bool_]
    label: Floats

    def __len__(self) -> int:
        return len(self.labeled)


def scores(strategy: Strategy, pool: Pool, *, batch: int, seed: int = 0) -> Floats:
    """[n] scores of the pool's items by a strategy; `batch` is how many will be taken before it is asked again.

    Raises UsageError where `mislabel` is asked without labels.
    """
    match strategy:
        case "random":
            return np.random.default_rng(seed).random(len(pool))
        case "uncertainty":
            return entropy(pool.p.mean(0))
        case "disagreement":
            return np.asarray(entropy(pool.p.mean(0)) - entropy(pool.p).mean(0))
        case "model_change":
            mean = pool.p.mean(0)
            return np.asarray(2 * mean * (1 - mean) * np.linalg.norm(pool.features, axis=1))
        case "mislabel":
            if np.isnan(pool.label).all():
                raise UsageError("strategy mislabel looks at labels again, and this pool has none; choose another")
            return np.asarray(np.nan_to_num(np.abs(pool.p.mean(0) - pool.label)))
        case "coverage":
            return coverage(pool.features, pool.labeled, batch=batch)


def weights(score: Floats, *, sharpness: float = SHARPNESS) -> Floats:
    """[n] drawing weights from the ranks of the scores, (rank / n) ^ sharpness: no scale, no outlier, never zero."""
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1
    return np.asarray((rank / len(score)) ** sharpness)


def entropy(p: Floats) -> Floats:
    """Entropy of a coin in nats."""
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-clipped * np.log(clipped) - (1 - clipped) * np.log1p(-clipped))


def coverage(features: Floats, labeled: NDArray[np.bool_], *, batch: int) -> Floats:
    """[n] scores that put a k-center greedy batch first, then the rest by distance to what is labeled or chosen.

    A pair and its mirror image are the same item, so distance is the smaller of |x - y| and |x + y|.
    """
    x = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    nearest = np.full(len(x), 2.0)
    for known in x[labeled]:
        nearest = np.minimum(nearest, _distance(x, known))
    score = np.zeros(len(x))
    for turn in range(min(batch, int((~labeled).sum()))):
        chosen = int(np.argmax(np.where(labeled | (score > 0), -1.0, nearest)))
        score[chosen] = 2 + batch - turn
        nearest = np.minimum(nearest, _distance(x, x[chosen]))
    return np.where(score > 0, score, nearest / 2)


def _distance(x: Floats, one: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum(2 - 2 * np.abs(x @ one), 0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """`start` random labels, then `rounds` batches of `batch`; `penalty` is the heads' inverse L2 strength."""

    start: int = 100
    batch: int = 50
    rounds: int = 18
    members: int = 5
    seeds: int = 10
    penalty: float = 1.0
    strategies: tuple[Strategy, ...] = ("random", *LEARNING)

    def __post_init__(self) -> None:
        if min(self.start, self.batch, self.rounds, self.members, self.seeds) < 1 or self.penalty <= 0:
            raise ConfigError("start, batch, rounds, members and seeds are at least 1, penalty is positive")
        if "random" not in self.strategies:
            raise ConfigError("the strategies must include random: it is what the others are compared with")
