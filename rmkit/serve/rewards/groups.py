"""The gather at which a group's requests wait for one another.

A trainer that sends one completion per request cannot have its group shaped by a stateless service. Requests that name
the same group and say how many completions it has (`group_size`) therefore meet here.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from rmkit.serve.rewards.shaping import Row, Shaped, shape
from rmkit.shaping import Chain

Rows = list[Row]


class WholeGroup:
    """The columns of all completions of a group. What is made of them is made once, however many requests ask."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._shaped: dict[str, list[Shaped]] = {}

    def shaped(self, chain: Chain) -> list[Shaped]:
        """As `shaping.shape`; raises DataError too."""
        if chain.spec not in self._shaped:
            self._shaped[chain.spec] = shape(chain, [("", row) for row in self.rows])
        return self._shaped[chain.spec]


@dataclass(slots=True)
class _Meeting:
    """The requests of one group so far; `group` once it is whole, or, as a sentence, why there is none."""

    size: int
    count: int = 0
    parts: dict[object, tuple[str, Rows]] = field(default_factory=dict)  # each with its model's fingerprint
    starts: dict[object, int] = field(default_factory=dict)  # of the whole group's parts
    group: WholeGroup | str | None = None
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """Put the parts together."""
        rows: Rows = []
        for part, (_, own) in self.parts.items():
            self.starts[part] = len(rows)
            rows += own
        self.group = WholeGroup(rows)
        if len(models := sorted({model for model, _ in self.parts.values()})) > 1:
            self.group = (
                f"no single model scored the group: the served model was swapped in between (fingerprints "
                f"{', '.join(models)}); send the whole group again"
            )
        self.whole.set()


class GroupGather:
    """Where requests of one group meet.

    Keys hold client, served name, signal, step and group, so nobody meets a stranger or adds up other components.
    """

    def __init__(self) -> None:
        self._meetings: dict[tuple[Any, ...], _Meeting] = {}

    @property
    def waiting(self) -> int:
        """Groups that are not whole yet."""
        return len(self._meetings)

    async def meet(
        self, key: tuple[Any, ...], rows: Rows, *, fingerprint: str, size: int, deadline: float
    ) -> tuple[WholeGroup, int] | str:
        """The group and where this request's rows begin in it; or, as a sentence, why there is no such group.

        A request that leaves before takes its rows along, so that it can come again. A group that became whole
        across a hot swap holds the scales of two models: all its requests are told so, at once.
        """
        meeting, me = self._meetings.get(key) or _Meeting(size), object()
        if meeting.size != size:
            return f"another request gave the group {meeting.size} completions, this one {size}"
        if meeting.count + len(rows) > size:
            return f"the group has {size} completions and got {meeting.count + len(rows)}"
        self._meetings[key] = meeting  # only now: a refused request must leave no empty meeting behind
        meeting.parts[me] = fingerprint, rows
        meeting.count += len(rows)
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
