"""Cog-Rethinker's way for prompts of accuracy zero: directly, then decomposed, then with reflection on wrong answers.

What is solved at a later stage becomes a row for supervised training under the direct prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Stage = Literal["direct", "decompose", "reflect"]
STAGES: tuple[Stage, ...] = ("direct", "decompose", "reflect")


class Solved(NamedTuple):
    """A rollout to train on as a demonstration: the stage at which it succeeded and its place there."""

    stage: Stage
    place: int


def next_stage(rewards: Sequence[float | None], stage: Stage) -> Stage | None:
    """The stage after one whose scored rewards are all 0; None after a success, without scores, or at the end."""
    scored = [reward for reward in rewards if reward is not None]
    if not scored or any(reward > 0 for reward in scored) or stage == STAGES[-1]:
        return None
    return STAGES[STAGES.index(stage) + 1]


def demonstrations(attempts: Mapping[Stage, Sequence[float | None]]) -> list[Solved]:
    """The rollouts of later stages that succeeded."""
    return [
        Solved(stage, place)
        for stage in STAGES[1:]
        for place, reward in enumerate(attempts.get(stage, ()))
        if reward is not None and reward > 0
    ]
