"""The engine: many requests to one generator, with bounded concurrency, retries, a budget and the cache of paid calls.

It runs an event loop of its own in a thread, so it serves plain code, threads and servers alike, and connections stay
open between calls. Its memory does not grow with the number of calls: `each` works through a stream in a window.
Retries are a plain loop: a tenacity object per call took a seventh of the processor time.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from rmkit.errors import ConfigError, DataError, EndpointError
from rmkit.generate.allowance import current_allowance
from rmkit.generate.budget import Budget, BudgetSpentError, Cost
from rmkit.generate.call_cache import CallCache
from rmkit.generate.request import Generator, Refused, Request, Sample, Transient
from rmkit.generate.tally import Tally
from rmkit.ledger import Ledger

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 4  # items under way per slot, so that one slow item does not leave slots empty
CHUNK = 64  # results handed over at a time
FAILURES_IN_A_ROW = 50  # exhausted requests after which the endpoint counts as broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`concurrency` requests in flight; `attempts` per request, with jittered waits growing from `wait_s`."""

    concurrency: int = 16
    attempts: int = 5
    wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.attempts < 1:
            raise ConfigError(f"concurrency and attempts must be at least 1, got {self.concurrency}, {self.attempts}")


class Engine:
    """`purpose` labels the calls in the bill, unless an allowance that it is opened under says it. Without a ledger
    nothing is cached. Close it, or use `with`."""

    def __init__(
        self,
        generator: Generator,
        *,
        ledger: Ledger | None = None,
        budget: Budget | None = None,
        limits: Limits | None = None,
        purpose: str = "generate",
    ) -> None:
        self.generator = generator
        self.budget = budget or Budget()
        self.limits = limits or Limits()
        self.tally = Tally()
        self._allowance = current_allowance()
        if self._allowance is not None:
            purpose = self._allowance.purpose
        self._cache = CallCache(ledger, purpose=purpose) if ledger else None
        self._slots = asyncio.Semaphore(self.limits.concurrency)
        # In flight or on the way to the disk: what a kill can lose. Without it a slow disk would let answers pile up.
        self._unstored = asyncio.Semaphore(2 * self.limits.concurrency)
        self._under_way: dict[str, asyncio.Future[Sample]] = {}
        self._failures_in_a_row = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="generate", daemon=True)
        self._thread.start()
        self._ending = weakref.finalize(self, _end, self._loop, self._thread, generator)

    def samples(self, requests: Sequence[Request]) -> list[Sample]:
        """One sample per request in the same order. Raises EndpointError where no request can be answered."""
        return list(self.each(self.sample, requests))

    def each(self, work: Callable[[Item], Coroutine[Any, Any, Result]], items: Iterable[Item]) -> Iterator[Result]:
        """`work(item)` for every item, in order, as they get done; many are under way at once.

        `work` runs in the engine's loop and awaits `sample`. Its first exception ends the iteration.
        """
        answers: queue.SimpleQueue[list[Result] | BaseException | None] = queue.SimpleQueue()
        pump = asyncio.run_coroutine_threadsafe(self._pump(work, iter(items), answers), self._loop)
        try:
            while (result := answers.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield from result
        finally:
            pump.cancel()

    async def _pump(
        self, work: Callable[[Item], Coroutine[Any, Any, Result]], items: Iterator[Item], answers: Any
    ) -> None:
        tasks: deque[asyncio.Task[Result]] = deque()
        done: list[Result] = []
        window = WINDOW * self.limits.concurrency
        try:
            ended = False
            while tasks or not ended:
                while not ended and len(tasks) < window:
                    try:
                        tasks.append(asyncio.create_task(work(next(items))))
                    except StopIteration:
                        ended = True
                if not tasks:
                    break
                if done and (len(done) >= CHUNK or not tasks[0].done()):
                    answers.put(done)
                    done = []
                    while answers.qsize() * CHUNK > window:  # the reader is slower than the endpoint
                        await asyncio.sleep(0.005)
                done.append(await tasks.popleft())
            answers.put(done)
            answers.put(None)
        except BaseException as error:
            answers.put(done)
            answers.put(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def sample(self, request: Request) -> Sample:
        """The cached answer, or a new one. Only from within `each`.

        What cannot be answered comes back as a failed Sample (refused, attempts used up, budget spent). Raises
        BudgetError where an allowance is spent.
        """
        try:
            key = request.key(self.generator.name)
        except DataError as error:  # half a surrogate pair
            return self._failed(f"refused: {error}")
        if same := self._under_way.get(key):
            return self._seen(await asyncio.shield(same))
        if self._cache and (result := self._cache.get(key)):
            return self._seen(result)
        if self._cache and (folder := self._cache.batch_of(key)):
            return self._failed(f"waits in a batch: collect it first, rmkit judge batch collect {folder}")
        answer: asyncio.Future[Sample] = self._loop.create_future()
        self._under_way[key] = answer
        try:
            async with self._unstored:
                worst = self._worst(request)
                if self._allowance is not None:
                    await self._allowance.set_aside(worst.usd)
                spent_usd = worst.usd  # where an error ends it
                try:
                    sample = await self._answered(request, worst)
                    if self._cache and sample.error is None:
                        await self._cache.put(key, sample, generator=self.generator.name)
                    spent_usd = sample.usd
                finally:
                    if self._allowance is not None:
                        self._allowance.settle(worst.usd, spent_usd)
            answer.set_result(sample)
        except BaseException as error:
            answer.set_exception(error) if isinstance(error, Exception) else answer.cancel()
            with contextlib.suppress(BaseException):
                answer.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._under_way[key]
        return sample

    def _seen(self, sample: Sample) -> Sample:
        if sample.error is None:
            self.tally.cached += 1
            self.tally.cached_tokens += sample.prompt_tokens + sample.completion_tokens
            self.tally.cached_usd += sample.usd
        return replace(sample, cached=True)

    def _worst(self, request: Request) -> Cost:
        usd = self.generator.prices.usd(request.most_tokens, request.max_tokens)
        return Cost(request.most_tokens + request.max_tokens, usd)

    async def _answered(self, request: Request, worst: Cost) -> Sample:
        async with self._slots:
            try:
                sample = await self._with_retries(request, worst)
            except Refused as refusal:
                return self._failed(f"refused: {refusal}")
            except BudgetSpentError as spent:
                return self._failed(str(spent))
            except Transient as failure:
                return self._given_up(failure)
        self._failures_in_a_row = 0
        return self._counted(sample)

    async def _with_retries(self, request: Request, worst: Cost) -> Sample:
        for attempt in range(1, self.limits.attempts):
            try:
                return await self._attempt(request, worst)
            except Transient as failure:
                self.tally.retries += 1
                await asyncio.sleep(self._wait_s(attempt, failure.retry_after_s))
        return await self._attempt(request, worst)

    async def _attempt(self, request: Request, worst: Cost) -> Sample:
        await self.budget.set_aside(worst)
        spent = Cost()
        began = time.perf_counter()
        try:
            sample = await self.generator.sample(request)
            spent = Cost(sample.prompt_tokens + sample.completion_tokens, sample.usd)
        except Transient as failure:
            if failure.billed:
                spent = worst
                self.tally.perhaps_usd += worst.usd
                if self._allowance is not None:
                    self._allowance.lose(worst.usd)
            raise
        finally:
            await self.budget.settle(worst, spent)
        return replace(sample, seconds=round(time.perf_counter() - began, 4))

    def _wait_s(self, attempt: int, retry_after_s: float) -> float:
        """What the server asked for, and a random share of a span that doubles with every attempt (full jitter)."""
        span = min(self.limits.wait_s * 2 ** (attempt - 1), self.limits.longest_wait_s)
        return min(retry_after_s, self.limits.longest_wait_s) + random.uniform(0, span)

    def _given_up(self, failure: Transient) -> Sample:
        self._failures_in_a_row += 1
        if failure.unreachable or self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise EndpointError(
                f"{self.generator.name} does not answer after {self.limits.attempts} attempts: {failure}; "
                "check that the server runs, then repeat: what was answered is kept"
            ) from None
        return self._failed(f"no answer after {self.limits.attempts} attempts: {failure}")

    def _failed(self, why: str) -> Sample:
        self.tally.failed += 1
        self.tally.reasons[why.split(":")[0]] += 1
        return Sample.failed(why)

    def _counted(self, sample: Sample) -> Sample:
        self.tally.calls += 1
        self.tally.truncated += sample.finish == "length"
        self.tally.prompt_tokens += sample.prompt_tokens
        self.tally.completion_tokens += sample.completion_tokens
        self.tally.usd += sample.usd
        return sample

    def close(self) -> None:
        """Close the generator and end the thread; done at the latest when the process ends."""
        self._ending()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, generator: Generator) -> None:
    if threading.current_thread() is thread:  # the last reference was dropped in the loop: waiting would never end
        loop.stop()
        return
    asyncio.run_coroutine_threadsafe(_closed(generator), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _closed(generator: Generator) -> None:
    await generator.close()
