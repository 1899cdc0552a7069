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


class WholeGroup:
    """The rewards of all completions of a group. What is made of them is made once, however many requests ask."""

    def __init__(self, rewards: Rewards) -> None:
        self.rewards = rewards
        self.n_present = sum(reward is not None for reward in rewards)
        self._transformed: dict[Transform, Rewards] = {}

    def transformed(self, transform: Transform) -> Rewards:
        if transform not in self._transformed:
            self._transformed[transform] = transformed(transform, self.rewards)
        return self._transformed[transform]


@dataclass(slots=True)
class _Meeting:
    """The requests of one group so far; `group` once it is whole, or, as a sentence, why there is none."""

    size: int
    count: int = 0
    parts: dict[object, tuple[str, Rewards]] = field(default_factory=dict)  # each with its model's fingerprint
    starts: dict[object, int] = field(default_factory=dict)  # of the whole group's parts
    group: WholeGroup | str | None = None
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """Put the parts together."""
        rewards: Rewards = []
        for part, (_, own) in self.parts.items():
            self.starts[part] = len(rewards)
            rewards += own
        self.group = WholeGroup(rewards)
        if len(models := sorted({model for model, _ in self.parts.values()})) > 1:
            self.group = (
                f"no single model scored the group: the served model was swapped in between (fingerprints "
                f"{', '.join(models)}); send the whole group again"
            )
        self.whole.set()


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
    ) -> tuple[WholeGroup, int] | str:
        """The group and where this request's rewards begin in it; or, as a sentence, why there is no such group.

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
        meeting.count += len(rewards)
        if meeting.count == size:
            del self._meetings[key]
            meeting.close()
        try:
            await asyncio.wait_for(meeting.whole.wait(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return f"only {meeting.count} of the group's {size} completions came before the deadline"
        finally:
            if not meeting.whole.is_set():
                self._leave(key, meeting, me)
        assert meeting.group is not None
        return meeting.group if isinstance(meeting.group, str) else (meeting.group, meeting.starts[me])

    def _leave(self, key: tuple[Any, ...], meeting: _Meeting, me: object) -> None:
        meeting.count -= len(meeting.parts.pop(me)[1])
        if not meeting.parts and self._meetings.get(key) is meeting:
            del self._meetings[key]
