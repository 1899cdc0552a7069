"""One model's queue and scoring thread: micro-batches under a token budget, from many requests at once.

The thread takes the next batch itself, without a turn of the event loop, so the model never waits for HTTP. An answer
comes from the one model that was current when the request came in. What the queue cannot hold is refused at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue import scoring_batch
from rmkit.serve.queue.fair_queue import Call, FairQueue, Job, Queued
from rmkit.serve.queue.scoring_batch import Ask, about_tokens
from rmkit.serve.settings import ServeSettings
from rmkit.types import Candidates, Comparison, ModelInfo, RewardModel, Score

__all__ = ["Answer", "Batcher", "Call", "about_tokens"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answer(Generic[Result]):
    """[P] results of one request, the model that gave them, and how long the request waited and took in all."""

    info: ModelInfo
    results: list[Result]
    queued_s: float
    total_s: float


class Batcher:
    """The queue and the scoring thread of one served model. `score` and `compare` are called from an event loop."""

    def __init__(self, model: RewardModel, settings: ServeSettings) -> None:
        self.model = model
        self.settings = settings
        self.batches = 0
        self._queue = FairQueue()
        self._speed = _Speed()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name=f"score-{model.info.name}", daemon=True)
        self._thread.start()

    async def score(
        self, items: Sequence[Candidates], *, call: Call, by: RewardModel | None = None
    ) -> Answer[list[Score]]:
        """[P][N] scores, of the current model where `by` names none.

        Raises HttpError where the queue is full, the deadline passes or the service goes down.
        """
        model = by or self.model
        return await self._ask(model, items, call, scoring_batch.score, share=model.info.pointwise)

    async def compare(self, items: Sequence[Candidates], *, call: Call) -> Answer[Comparison]:
        """[P] comparisons of Candidates of two. Raises HttpError as `score`."""
        return await self._ask(self.model, items, call, scoring_batch.compare, share=False)

    def swap(self, model: RewardModel) -> None:
        """Answer requests that come from now on with another model; those already here keep theirs."""
        self.model = model

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> tuple[int, int]:
        """(items, estimated tokens) that are queued or being scored."""
        return self._queue.items, self._queue.tokens

    @property
    def wait_s(self) -> float:
        """Estimated time until an item that comes now is scored; 0 before anything was measured."""
        return self._queue.tokens * self._speed.s_per_token

    @property
    def full(self) -> bool:
        """Whether nothing more would be taken now."""
        return self._queue.tokens >= self.settings.max_queue_tokens or self.wait_s > self.settings.max_wait_s

    def refuse_if_full(self, tokens: int = 0) -> None:
        """Raise the HttpError (429) that a request of so many tokens would get now."""
        if self._queue.tokens and self._queue.tokens + tokens >= self.settings.max_queue_tokens:
            raise HttpError(429, "the queue is full; try again later", retry_after_s=max(1.0, self.wait_s / 2))
        if (wait_s := self.wait_s) > (allowed := self.settings.max_wait_s):
            raise HttpError(
                429,
                f"what waits would take {wait_s:.0f} s, more than the {allowed:g} s allowed",
                retry_after_s=wait_s - allowed,
            )

    async def _ask(
        self, model: RewardModel, items: Sequence[Candidates], call: Call, ask: Ask, *, share: bool
    ) -> Answer[Any]:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        job = Job(model, ask, share, call, loop, loop.create_future(), [None] * len(items), len(items), now)
        if not items:
            return Answer(model.info, [], 0.0, 0.0)
        self._put(job, items)
        try:
            await asyncio.wait_for(job.done, None if call.deadline is None else max(0.0, call.deadline - now))
        except TimeoutError as error:
            message = "the deadline passed before the answer was there"
            raise HttpError(504, message, retry_after_s=self.wait_s) from error
        finally:
            with self._changed:
                self._queue.leave(job)
        return Answer(model.info, job.results, (job.started or now) - now, time.monotonic() - now)

    def _put(self, job: Job, items: Sequence[Candidates]) -> None:
        tokens = [about_tokens(item) for item in items]
        if (largest := max(tokens)) > (most := self.settings.max_item_tokens):
            raise HttpError(413, f"an item of about {largest} tokens; at most {most} are taken")
        with self._changed:
            if not self._open:
                raise HttpError(503, "the service is going down; ask another replica", retry_after_s=1)
            self.refuse_if_full(sum(tokens))
            if job.call.deadline is not None and job.since + self.wait_s > job.call.deadline:
                raise HttpError(429, f"about {self.wait_s:.0f} s of work waits, past your deadline", retry_after_s=1)
            self._queue.push(job, items, tokens)
            self._changed.notify()

    def _run(self) -> None:
        while batch := self._next_batch():
            start = time.monotonic()
            for model, ask, part in _alike(batch):
                self._deliver(part, scoring_batch.in_halves(model, ask, [queued.candidates for queued in part]))
            with self._changed:
                self._speed.saw(sum(queued.tokens for queued in batch), time.monotonic() - start)
                self.batches += 1

    def _next_batch(self) -> list[Queued]:
        """Blocks until there is something to score; empty when the batcher was closed and the queue is done."""
        with self._changed:
            while not (batch := self._queue.take(self.settings.batch_tokens)) and self._open:
                self._changed.wait()
            return batch

    def _deliver(self, part: Sequence[Queued], results: Sequence[Any]) -> None:
        complete: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        with self._changed:
            for queued, result in zip(part, results, strict=True):
                queued.job.results[queued.index] = result
                self._queue.scored(queued)
                if not queued.job.left:
                    complete.setdefault(queued.job.loop, []).append(queued.job)
        for loop, jobs in complete.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, jobs)


@dataclass(slots=True)
class _Speed:
    """Seconds per token over the last batches, each weighing 0.8 of the next; silent until three were seen."""

    batches: int = 0
    tokens: float = 0.0
    seconds: float = 0.0

    def saw(self, tokens: int, seconds: float) -> None:
        self.batches += 1
        self.tokens = 0.8 * self.tokens + tokens
        self.seconds = 0.8 * self.seconds + seconds

    @property
    def s_per_token(self) -> float:
        return self.seconds / self.tokens if self.batches >= 3 else 0.0


def _alike(batch: Sequence[Queued]) -> list[tuple[RewardModel, Ask, list[Queued]]]:
    """The batch by model and question: requests from before a hot swap and comparisons are asked apart."""
    parts: dict[tuple[int, Ask], tuple[RewardModel, Ask, list[Queued]]] = {}
    for queued in batch:
        job = queued.job
        parts.setdefault((id(job.model), job.ask), (job.model, job.ask, []))[2].append(queued)
    return list(parts.values())


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_result(None)
