"""Pairs from the members of a group: TRPA's levels, and winners against losers of equivalent representations.

TRPA: of each group all pairs of different levels, the lower level wins; a pair whose winner is right (level 1) weighs
2.5. The weight scales the margin of the preference loss (objective `scaled_margin`), not the loss itself. The cap on
pairs is ours (inferred).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from itertools import combinations, groupby
from typing import NamedTuple

import numpy as np


class LevelPair(NamedTuple):
    """Places of the two in the group's columns, and what the margin is multiplied by."""

    winner: int
    loser: int
    weight: float


def level_pairs(
    levels: Sequence[float | None],
    groups: Sequence[Hashable] | None = None,
    *,
    right_weight: float = 2.5,
    cap: int = 64,
    seed: int = 0,
) -> list[LevelPair]:
    """All pairs of different levels within each group, 1 being the best; at most `cap` a group, drawn evenly.

    A completion without a level is in no pair.
    """
    keys = list(groups) if groups is not None else [0] * len(levels)
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    rows = sorted(
        (number[key], row) for row, (key, level) in enumerate(zip(keys, levels, strict=True)) if level is not None
    )
    pairs: list[LevelPair] = []
    for group, members in groupby(rows, key=lambda one: one[0]):
        new = []
        for (_, first), (_, second) in combinations(members, 2):
            one, other = levels[first], levels[second]
            if one is not None and other is not None and one != other:
                winner, loser = (first, second) if one < other else (second, first)
                new.append(LevelPair(winner, loser, right_weight if min(one, other) == 1 else 1.0))
        if len(new) > cap:
            places = np.random.default_rng([seed, group]).choice(len(new), cap, replace=False)
            new = [new[place] for place in sorted(places)]
        pairs += new
    return pairs


def cross_pair_loss(winners: Sequence[float], losers: Sequence[float], *, beta: float = 0.5) -> float:
    """Mean of -log sigma(beta (l_w - l_l)) over all winners and losers of one prompt, l = log(pi / pi_ref).

    GEPO over equivalent representations of one problem; the formula is inferred. NaN where a side is empty.
    """
    terms = [math.log1p(math.exp(-beta * (one - other))) for one in winners for other in losers]
    return sum(terms) / len(terms) if terms else math.nan
