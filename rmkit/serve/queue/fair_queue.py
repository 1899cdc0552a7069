"""What waits for one model, in fair order (not thread-safe: the batcher locks).

Start-time fair queueing (Goyal, Vin & Cheng 1997): an item of client c gets the tag max(V, F_c), and F_c moves on by
the item's tokens; V is the tag of the item last taken. The lowest tag goes first, so clients with work share the model
equally by tokens, however many requests each sends. A higher priority goes before any lower one. An item takes what
else waits on its prompt along, whoever sent it: scored together, the model reads the prompt once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmkit.serve.queue.scoring_batch import Ask, about_prompt_tokens, prompt_key
from rmkit.types import Candidates, RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who asks and how: `client` shares fairly with others; `deadline` is on the clock of `time.monotonic`."""

    client: str = "local"
    route: str = ""
    request_id: str = ""
    priority: int = 0
    deadline: float | None = None
    sources: tuple[str | None, ...] = ()


@dataclass(slots=True)
class Job:
    """One request of P items. `results` [P] fills up as items are scored, at their index, in any order; `left` of them
    are still None. `share` lets its items go with others of the same prompt.
    """

    model: RewardModel  # the one that was current when the request came in; a hot swap does not change it
    ask: Ask
    share: bool
    call: Call
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    results: list[Any]
    left: int
    since: float
    started: float | None = None
    tokens: int = 0  # of the items that have no result yet
    dropped: bool = False  # answered, refused or abandoned: what has no result yet is not wanted any more


@dataclass(slots=True, order=True)
class Queued:
    """One item of a job; the lowest `order` goes first."""

    order: tuple[int, float, int]  # (-priority, start tag, number of arrival): never equal, so nothing else compares
    job: Job = field(compare=False)
    index: int = field(compare=False)
    candidates: Candidates = field(compare=False)
    tokens: int = field(compare=False)
    taken: bool = field(default=False, compare=False)

    @property
    def gone(self) -> bool:
        return self.taken or self.job.dropped


class FairQueue:
    """`items` and `tokens` count what waits or is being scored, without what was dropped.

    Nothing is removed from the middle of the heap: an item that was taken beside a sibling, or whose job was dropped,
    is `gone` and skipped when it comes up. `leave` clears the heap once more than half of it is gone, so it holds at
    most twice what waits (and 64), and each item is moved a bounded number of times.
    """

    def __init__(self) -> None:
        self.items = self.tokens = 0
        self._heap: list[Queued] = []
        # By prompt, in order of arrival: what waits and a model may see together. A prompt of which nothing waits has
        # no entry, or a queue that never runs empty would remember every prompt it saw.
        self._siblings: dict[Hashable, deque[Queued]] = {}
        self._numbers = itertools.count()
        self._virtual = 0.0  # V: never falls while anything waits
        self._finish: dict[str, float] = {}  # F by client; one below V says nothing, V counts instead
        self._stale = 0  # at most so many entries of the heap are gone

    def __len__(self) -> int:
        """Entries in the heap, those included that are gone."""
        return len(self._heap)

    def push(self, job: Job, items: Sequence[Candidates], tokens: Sequence[int]) -> None:
        """Queue a request's items with their estimated tokens."""
        # A client that was idle starts at V: it catches nothing up. One with work waiting goes on behind it.
        at = max(self._virtual, self._finish.get(job.call.client, 0.0))
        for index, (item, cost) in enumerate(zip(items, tokens, strict=True)):
            queued = Queued((-job.call.priority, at, next(self._numbers)), job, index, item, cost)
            heapq.heappush(self._heap, queued)
            if job.share:
                self._siblings.setdefault(prompt_key(item), deque()).append(queued)
            at += cost
        self._finish[job.call.client] = at
        job.tokens = sum(tokens)
        self.items += len(items)
        self.tokens += job.tokens

    def take(self, budget: int) -> list[Queued]:
        """The next items up to `budget` tokens, at least one if there is any; a shared prompt counts once."""
        batch: list[Queued] = []
        total, now = 0, time.monotonic()
        while self._heap:
            first = self._heap[0]
            if not first.gone and batch and total + first.tokens > budget:
                break  # the first item goes even where it alone is beyond the budget
            heapq.heappop(self._heap)
            if first.gone:
                self._stale -= 1
                continue
            # A higher priority may bring a lower tag than V; siblings below do not move V: they ride along.
            self._virtual = max(self._virtual, first.order[1])
            total += self._take_one(first, batch, now)
            total += self._take_siblings(first, batch, now, budget - total)
        if not batch:  # idle: tags start anew
            self._virtual, self._finish, self._siblings = 0.0, {}, {}
        return batch

    def scored(self, queued: Queued) -> None:
        """An item has its result."""
        job = queued.job
        job.left -= 1
        if not job.dropped:  # else `leave` has taken it out of the counts
            job.tokens -= queued.tokens
            self.tokens -= queued.tokens
            self.items -= 1

    def leave(self, job: Job) -> None:
        """What has no result yet of a request that is over leaves the counts now and the heap soon."""
        if job.dropped:
            return
        job.dropped = True
        self.tokens -= job.tokens
        self.items -= job.left
        self._stale += job.left  # those of them that are being scored left the heap: an upper bound
        if self._stale > 64 and 2 * self._stale > len(self._heap):
            self._heap = [item for item in self._heap if not item.gone]
            heapq.heapify(self._heap)
            remaining = {key: deque(one for one in waiting if not one.gone) for key, waiting in self._siblings.items()}
            self._siblings = {key: waiting for key, waiting in remaining.items() if waiting}
            self._stale = 0

    @staticmethod
    def _take_one(item: Queued, batch: list[Queued], now: float) -> int:
        item.taken = True
        item.job.started = item.job.started or now
        batch.append(item)
        return item.tokens

    def _take_siblings(self, first: Queued, batch: list[Queued], now: float, budget: int) -> int:
        """Take what else waits on the prompt for the same model, in order of arrival, up to a budget.

        Gives its tokens without the prompt, which the batch has already.
        """
        if not first.job.share:
            return 0
        key, total = prompt_key(first.candidates), 0
        siblings = self._siblings.get(key) or deque()
        others: list[Queued] = []
        while siblings:  # those that stay are not looked at: thousands may wait on one prompt
            other = siblings[0]
            if not other.gone and other.job.model is first.job.model:
                cost = other.tokens - about_prompt_tokens(other.candidates)
                if total + cost > budget:
                    break
                self._stale += 1  # its place in the heap
                self._take_one(other, batch, now)
                total += cost
            elif not other.gone:  # before and after a hot swap never mix
                others.append(other)
            siblings.popleft()
        siblings.extendleft(reversed(others))
        if not siblings:
            self._siblings.pop(key, None)
        return total
