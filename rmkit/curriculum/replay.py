"""ARPO's replay of wins (GUI agents): a group that fails alike gets one stored success of its task.

    before any format reward: population deviation < .05 and mean < .2  ->  a stored win takes the first place

Each task stores its last 8 rollouts whose reward was above .1.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROOM, WORTH = 8, 0.1
ALIKE, POOR = 0.05, 0.2


class Win(NamedTuple):
    """A stored rollout (its id or text) and its reward."""

    rollout: str
    reward: float


def stored(wins: Sequence[Win], rollouts: Sequence[Win], *, room: int = ROOM, worth: float = WORTH) -> tuple[Win, ...]:
    """The task's wins after more rollouts, the oldest making room."""
    return (*wins, *(one for one in rollouts if one.reward > worth))[-room:]


def replacement(rewards: Sequence[float | None], wins: Sequence[Win], rng: np.random.Generator) -> Win | None:
    """The win that takes the first rollout's place; None where the group needs none, or there is none."""
    scored = [reward for reward in rewards if reward is not None]
    if not wins or not scored or statistics.pstdev(scored) >= ALIKE or statistics.fmean(scored) >= POOR:
        return None
    return wins[int(rng.integers(len(wins)))]
