"""Transforms over the rewards of a group (`rmkit.shaping`), and the gather at which a group's requests wait.

A trainer that sends one completion per request cannot have its group centered by a stateless service. Requests that
name the same `group_id` and say how many completions the group has (`group_size`) therefore meet here.

    center          r_i - mean(r)
    z_score         (r_i - mean(r)) / std(r), population; 0 where all are equal (GRPO, Shao et al. 2024)
    leave_one_out   r_i - mean of the others (RLOO, Ahmadian et al. 2024); a sole completion has none
    rank            (wins + ties / 2) / (n - 1) against the others, in [0, 1]; a sole completion has none

A reward that is missing or no finite number is missing in the result and counts in no mean; so is a result beyond the
largest number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rmkit.shaping import Group, chain

Transform = Literal["center", "z_score", "leave_one_out", "rank"]
Rewards = list[float | None]


def transformed(transform: Transform, rewards: Sequence[float | None]) -> Rewards:
    """The group's rewards, transformed; None where one is missing or the transform is undefined."""
    return chain(transform).apply(Group.of(reward=rewards))["reward"]


@dataclass(slots=True)
class _Meeting:
    size: int
    parts: dict[object, tuple[str, Rewards]] = field(default_factory=dict)  # each with its model's fingerprint
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def count(self) -> int:
        return sum(len(rewards) for _, rewards in self.parts.values())


class GroupGather:
    """Where requests of one group meet.

    Keys hold client, served name, mix, transform and group, so nobody meets a stranger or adds up other components.
    """

    def __init__(self) -> None:
        self._meetings: dict[tuple[Any, ...], _Meeting] = {}

    @property
    def waiting(self) -> int:
        """Groups that are not whole yet."""
        return len(self._meetings)

    async def meet(
        self, key: tuple[Any, ...], rewards: Rewards, *, fingerprint: str, size: int, deadline: float
    ) -> tuple[Rewards, int] | str:
        """All rewards of the group and where this request's begin; or, as a sentence, why there is no such group.

        A request that leaves before takes its rewards along, so that it can come again. A group that became whole
        across a hot swap holds the scales of two models: all its requests are told so, at once.
        """
        meeting, me = self._meetings.get(key) or _Meeting(size), object()
        if meeting.size != size:
            return f"another request gave the group {meeting.size} completions, this one {size}"
        if meeting.count + len(rewards) > size:
            return f"the group has {size} completions and got {meeting.count + len(rewards)}"
        self._meetings[key] = meeting  # only now: a refused request must leave no empty meeting behind
        meeting.parts[me] = fingerprint, rewards
        if meeting.count == size:
            del self._meetings[key]
            meeting.whole.set()
        try:
            await asyncio.wait_for(meeting.whole.wait(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return f"only {meeting.count} of the group's {size} completions came before the deadline"
        finally:
            if not meeting.whole.is_set():
                self._leave(key, meeting, me)
        if len(models := sorted({one for one, _ in meeting.parts.values()})) > 1:
            return (
                f"no single model scored the group: the served model was swapped in between (fingerprints "
                f"{', '.join(models)}); send the whole group again"
            )
        before = list(meeting.parts)[: list(meeting.parts).index(me)]
        group = [reward for _, part in meeting.parts.values() for reward in part]
        return group, sum(len(meeting.parts[other][1]) for other in before)

    def _leave(self, key: tuple[Any, ...], meeting: _Meeting, me: object) -> None:
        del meeting.parts[me]
        if not meeting.parts and self._meetings.get(key) is meeting:
            del self._meetings[key]
