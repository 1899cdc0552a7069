"""What a service holds while it runs, for tests.harness.test_growth: each case takes so many requests or entries."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rmkit.types import Candidates, Completion, Event, Message, Score

Call = Callable[[], Any]


def idempotency(size: int) -> Call:
    """So many requests, each with a key of its own."""
    import asyncio

    from starlette.responses import Response

    from rmkit.serve.http.idempotency import IdempotencyCache

    async def answer() -> Response:
        return Response(b"x" * 1_000)

    async def all_of(replies: IdempotencyCache) -> None:
        for at in range(size):
            await replies.once(("client", str(at)), b"body", answer)

    return lambda: asyncio.run(all_of(IdempotencyCache()))


def queue_of(share: bool, clients: int, size: int) -> Call:
    """So many requests of one item wait and are taken, all on one prompt where `share`."""
    import asyncio
    import time

    from rmkit.models.small.length import LengthModel
    from rmkit.serve.queue import scoring_batch
    from rmkit.serve.queue.fair_queue import Call as Asked
    from rmkit.serve.queue.fair_queue import FairQueue, Job
    from rmkit.types import Candidates, Completion, Message

    def call() -> None:
        queue, loop, model = FairQueue(), asyncio.new_event_loop(), LengthModel()
        for at in range(size):
            prompt = (Message("user", "one prompt" if share else f"prompt {at}"),)
            item = Candidates(prompt, (Completion((Message("assistant", f"reply {at}"),)),))
            asked = Asked(client=f"c{at % clients}")
            job = Job(model, scoring_batch.score, share, asked, loop, loop.create_future(), [None], 1, time.monotonic())
            queue.push(job, [item], [20])
        while queue.take(2_000):
            pass
        loop.close()

    return call


def reward_log(size: int) -> Call:
    """So many rewards wait on disk while the ledger is away, then all go into it, and as many more beside them."""
    from rmkit.errors import StoreError
    from rmkit.ledger import open_ledger
    from rmkit.models.small.length import LengthModel
    from rmkit.serve.queue.batcher import Answer
    from rmkit.serve.queue.fair_queue import Call as Asked
    from rmkit.serve.rewards import reward_log
    from rmkit.serve.rewards.reward_log import RewardLog, Served

    reward_log.RETRY_S, reward_log.FLUSH_S = (0.01, 0.05), 0.01
    folder = Path(tempfile.mkdtemp())
    info = LengthModel().info
    item = Candidates((Message("user", "a question"),), (Completion((Message("assistant", "a reply"),)),))
    answers = [
        Served("m", [item], Asked(request_id=f"r{at}"), Answer(info, [[Score(float(at))]], 0.0, 0.0))
        for at in range(size)
    ]

    def call() -> None:
        with open_ledger(folder / "ledger.sqlite") as ledger:
            append, away = ledger.append_many, True

            def perhaps(events: Sequence[Event]) -> Any:
                if away:
                    raise StoreError("away")
                return append(events)

            ledger.append_many = perhaps  # type: ignore[method-assign]
            log = RewardLog(ledger, room=2 * size, folder=folder / "waiting")
            for served in answers[: size // 2]:
                log.add(served)
            while log._queue.qsize():
                time.sleep(0.01)
            away = False
            for served in answers[size // 2 :]:
                log.add(served)
            log.close()
            assert (log.lost, log.waiting) == (0, 0)

    return call


def score_cache(size: int) -> Call:
    """So many scores go in and out of a client's cache that holds half of them."""
    from rmkit.serve.clients.score_cache import ScoreCache

    def call() -> None:
        cache = ScoreCache(size // 2, max_age_s=3600)
        for at in range(size):
            cache.put(f"key {at}", Score(float(at)), fingerprint="f")
            cache.get(f"key {at - size // 4}")

    return call


def byte_budget(size: int) -> Call:
    """So many clients hold a body each, all at once."""
    from rmkit.serve.http.budget import ByteBudget

    def call() -> None:
        budget = ByteBudget(2**40)
        for take in (True, False):
            for at in range(size):
                budget.check(f"client {at}", 100)
                (budget.take if take else budget.give_back)(f"client {at}", 100)

    return call


def gather(groups: int | None, size: int) -> Call:
    """So many requests of one completion meet, in groups of two (`groups` None) or in so many large ones."""
    from rmkit.serve.rewards.groups import GroupGather

    async def all_of(meetings: GroupGather) -> None:
        n = size // 2 if groups is None else groups
        deadline = time.monotonic() + 600
        members = size // n
        await asyncio.gather(
            *(
                meetings.meet(("k", at % n), [{"reward": float(at)}], fingerprint="f", size=members, deadline=deadline)
                for at in range(members * n)
            )
        )
        assert not meetings.waiting

    return lambda: asyncio.run(all_of(GroupGather()))


CASES: dict[str, tuple[int, Callable[[int], Call]]] = {
    "service idempotency": (2_000, idempotency),
    "service queue": (10_000, functools.partial(queue_of, False, 1)),
    "service queue of many clients": (10_000, functools.partial(queue_of, False, 1_000)),
    "service queue of one prompt": (10_000, functools.partial(queue_of, True, 1)),
    "service reward log": (4_000, reward_log),
    "service score cache": (60_000, score_cache),
    "service byte budget": (60_000, byte_budget),
    "service groups": (16_000, functools.partial(gather, None)),
    "service one group": (16_000, functools.partial(gather, 1)),
}
