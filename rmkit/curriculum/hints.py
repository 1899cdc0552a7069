"""Hints for prompts that nobody solves, weakest first, and how a hinted group is made.

tiers    Scaf-GRPO: a prompt that failed throughout gets one rollout per tier of its hints; the lowest tier with a
         success takes the place of one of the n rollouts
ratio    GHPO: the whole group again with the first 25%, 50%, then 75% of the reference solution's characters
self     NuRL: n - 1 rollouts with a hint that the policy wrote itself, one without
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RATIOS = (0.25, 0.5, 0.75)


class Replacement(NamedTuple):
    """Which rollout makes room (`place`) for the hinted one of which tier (from 1)."""

    place: int
    tier: int


def scaffold(rewards: Sequence[float | None], hinted: Sequence[float | None]) -> Replacement | None:
    """What Scaf-GRPO replaces: None where the bare group has a success, or no tier has.

    `hinted` are the rewards of one rollout per tier, weakest hint first. The last failed rollout makes room.
    """
    scored = [place for place, reward in enumerate(rewards) if reward is not None]
    if not scored or any((rewards[place] or 0) > 0 for place in scored):
        return None
    tier = next((tier for tier, reward in enumerate(hinted, 1) if reward is not None and reward > 0), None)
    return None if tier is None else Replacement(scored[-1], tier)


def partial_solution(solution: str, tier: int, *, ratios: Sequence[float] = RATIOS) -> str | None:
    """The first part of a reference solution for the tier (from 1), None beyond the last: characters, rounded."""
    return solution[: round(ratios[tier - 1] * len(solution))] if 1 <= tier <= len(ratios) else None


def next_tier(all_failed: bool, tier: int, *, tiers: int) -> int | None:
    """GHPO's ladder: the tier to sample the group with next, 0 for the bare prompt, None where all tiers failed."""
    if not all_failed:
        return tier
    return tier + 1 if tier < tiers else None


def self_hinted(n: int) -> list[bool]:
    """NuRL: for each of n rollouts whether it gets the hint."""
    return [True] * (n - 1) + [False] if n > 1 else [False] * n
