"""In which order responses are shown, and which item comes next: seeded, balanced, with known probabilities.

Items are drawn one after the other without replacement, each with a probability in proportion to its weight among
those left (successive sampling; by Gumbel keys: Yellott 1977). A share `EXPLORE` of every draw is uniform, so no
propensity is zero and estimates from the labels can be weighted back to the whole pool (Horvitz and Thompson 1952).
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmkit.ids import content_hash

EXPLORE = 0.1


def shown_order(seed: int, unit: str, *, n: int, turn: int) -> tuple[int, ...]:
    """Stored positions in the order in which they are shown.

    `turn` counts who sees the item (0, 1, ...): the first order is random by seed and unit, each next turn rotates it
    by one, so that over n turns every response stands at every place once (a pair: both orders equally often).
    """
    drawn = list(range(n))
    random.Random(content_hash(f"{seed}/{unit}")).shuffle(drawn)
    shift = turn % n if n else 0
    return tuple(drawn[shift:] + drawn[:shift])


def drawing(weights: NDArray[Any], *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(order [n], propensity [n] of each place's item at the moment of its draw).

    Raises ValueError for weights that are negative, not finite or all zero.
    """
    weights = np.asarray(weights, np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise ValueError("weights must be finite, not negative and not all zero")
    mixed = (1 - EXPLORE) * weights / weights.sum() + EXPLORE / len(weights)
    keys = np.log(mixed) + np.random.default_rng(seed).gumbel(size=len(mixed))
    order = np.argsort(-keys, kind="stable")
    left = np.cumsum(mixed[order][::-1])[::-1]
    return order, mixed[order] / left
