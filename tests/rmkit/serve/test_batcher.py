"""The queue of one served model: batches, fairness, deadlines, bounds, cancellation, bad items, hot swap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("fastapi")

from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue import scoring_batch
from rmkit.serve.queue.batcher import Answer, Batcher, Call, about_tokens
from rmkit.serve.queue.fair_queue import FairQueue, Job, Queued
from rmkit.serve.settings import ServeSettings
from rmkit.types import Score
from tests.rmkit.serve.serving import Steered, item

TOKENS = about_tokens(item("p", "x"))  # of the small items here


def run(model: Steered, settings: ServeSettings, test: Callable[[Batcher], Awaitable[Any]]) -> Any:
    """Run `test` on a batcher and close it."""
    batcher = Batcher(model, settings)
    try:
        return asyncio.run(asyncio.wait_for(test(batcher), 20))
    finally:
        model.gate.set()
        batcher.close()


def values(answer: Answer[list[Score]]) -> list[list[float]]:
    return [[score.value for score in row] for row in answer.results]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def plug(batcher: Batcher, model: Steered) -> asyncio.Task[Answer[list[Score]]]:
    """One request that keeps the model busy until the gate opens; what comes then has to queue."""
    model.gate.clear()
    model.started.clear()
    task = asyncio.create_task(batcher.score([item("plug", "plug")], call=Call(client="plug")))
    await asyncio.to_thread(model.started.wait, 20)
    return task


def test_results_keep_order_and_shape() -> None:
    async def test(batcher: Batcher) -> None:
        answer = await batcher.score([item("a", "1", "333"), item("b", "22")], call=Call())
        assert values(answer) == [[1, 3], [2]]
        assert answer.info is model.info
        assert 0 <= answer.queued_s <= answer.total_s
        assert (await batcher.score([], call=Call())).results == []

    model = Steered()
    run(model, ServeSettings(), test)


def test_requests_of_one_prompt_are_scored_together_and_given_back_apart() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        asked = [item("same", "1"), item("other", "4444"), item("same", "22", "55555")]
        tasks = [asyncio.create_task(batcher.score([one], call=Call())) for one in asked]
        await until(lambda: batcher.waiting[0] == 4)
        model.gate.set()
        assert [values(answer) for answer in await asyncio.gather(*tasks)] == [[[1]], [[4]], [[2, 5]]]
        await busy

    model = Steered()
    run(model, ServeSettings(), test)
    assert [(one.prompt[0].content, [c.text for c in one.completions]) for one in model.batches[1]] == [
        ("same", ["1", "22", "55555"]),
        ("other", ["4444"]),
    ]


def test_a_model_that_judges_groups_sees_them_as_they_came() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        tasks = [asyncio.create_task(batcher.score([item("same", text)], call=Call())) for text in ("1", "22")]
        await until(lambda: batcher.waiting[0] == 3)
        model.gate.set()
        await asyncio.gather(busy, *tasks)

    model = Steered(pointwise=False)
    run(model, ServeSettings(), test)
    assert [len(one.completions) for one in model.batches[1]] == [1, 1]


def test_batches_keep_to_the_token_budget() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        task = asyncio.create_task(batcher.score([item(f"p{n}", "x") for n in range(7)], call=Call()))
        await until(lambda: batcher.waiting[0] == 8)
        model.gate.set()
        await asyncio.gather(busy, task)

    model = Steered()
    run(model, ServeSettings(batch_tokens=3 * TOKENS), test)
    assert [len(batch) for batch in model.batches] == [1, 3, 3, 1]


def test_clients_share_by_tokens_however_many_requests_they_send() -> None:
    """A greedy client queues 40 items, then a modest one 4: the modest one is not made to wait for the 40."""

    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        greedy = [asyncio.create_task(batcher.score([item(f"g{n}", "x")], call=Call(client="g"))) for n in range(40)]
        await until(lambda: batcher.waiting[0] == 41)
        modest = asyncio.create_task(batcher.score([item(f"m{n}", "x") for n in range(4)], call=Call(client="m")))
        await until(lambda: batcher.waiting[0] == 45)
        model.gate.set()
        await asyncio.gather(busy, modest, *greedy)

    model = Steered()
    run(model, ServeSettings(batch_tokens=4 * TOKENS), test)
    order = [one.prompt[0].content for batch in model.batches[1:] for one in batch]
    assert sum(name.startswith("m") for name in order[:9]) == 4
    assert len(order) == 44


def test_what_waits_on_the_same_prompt_comes_along() -> None:
    """Twelve samples of three prompts arrive shuffled, and four fit in a batch: a batch still holds one prompt."""

    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        names = [f"prompt {n % 3}" for n in range(12)]
        tasks = [
            asyncio.create_task(batcher.score([item(name, "x" * (n + 1))], call=Call(client=f"c{n}")))
            for n, name in enumerate(names)
        ]
        await until(lambda: batcher.waiting[0] == 13)
        model.gate.set()
        assert [values(answer) for answer in await asyncio.gather(*tasks)] == [[[n + 1]] for n in range(12)]
        await busy

    model = Steered()
    first, more = about_tokens(item("prompt 0", "x")), about_tokens(item("prompt 0", "x" * 12)) - 10
    run(model, ServeSettings(batch_tokens=first + 3 * more), test)
    assert [[one.prompt[0].content for one in batch] for batch in model.batches[1:]] == [
        ["prompt 0"],
        ["prompt 1"],
        ["prompt 2"],
    ]
    assert all(len(batch[0].completions) == 4 for batch in model.batches[1:])


def test_a_queue_that_never_runs_empty_forgets_the_prompts_it_served() -> None:
    """Two requests on each of 500 prompts, one always waiting: neither heap nor siblings grow with what is done."""

    async def test() -> None:
        queue, model, loop = FairQueue(), Steered(), asyncio.get_running_loop()

        def push(number: int) -> None:
            for _ in range(2):
                job = Job(model, scoring_batch.score, True, Call(), loop, loop.create_future(), [None], 1, 0.0)
                queue.push(job, [item(f"p{number}", "x")], [TOKENS])

        push(0)
        for number in range(1, 500):
            push(number)
            batch = queue.take(3 * TOKENS // 2)
            assert [one.job.model for one in batch] == [model] * 2
            for one in batch:
                queue.scored(one)
                queue.leave(one.job)
        assert queue.items == 2
        assert len(queue._siblings) == 1
        assert len(queue) <= 2 * queue.items + 64

    asyncio.run(test())


def test_a_higher_priority_goes_first() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        calls = [("low", -1), ("plain", 0), ("high", 2)]
        tasks = [asyncio.create_task(batcher.score([item(n, "x")], call=Call(priority=p))) for n, p in calls]
        await until(lambda: batcher.waiting[0] == 4)
        model.gate.set()
        await asyncio.gather(busy, *tasks)

    model = Steered()
    run(model, ServeSettings(batch_tokens=1), test)
    assert [batch[0].prompt[0].content for batch in model.batches[1:]] == ["high", "plain", "low"]


def test_one_bad_item_fails_alone_and_its_text_is_not_told() -> None:
    async def test(batcher: Batcher) -> None:
        answer = await batcher.score([item("a", "1"), item("b", "bad"), item("c", "nan"), item("d", "22")], call=Call())
        [first], [bad], [nan], [last] = answer.results
        assert (first.value, last.value) == (1, 2)
        assert bad.unscored == "the model raised RuntimeError"
        assert nan.unscored == "nothing there"
        [comparison, failed] = (
            await batcher.compare([item("a", "1", "22"), item("b", "bad", "1")], call=Call())
        ).results
        assert comparison.p_first == pytest.approx(0.2689414)
        assert failed.unscored == "the model raised RuntimeError"

    run(Steered(), ServeSettings(), test)


def test_a_model_that_gives_too_few_scores_is_not_believed() -> None:
    async def test(batcher: Batcher) -> None:
        answer = await batcher.score([item("a", "1", "22")], call=Call())
        assert [score.unscored for score in answer.results[0]] == ["the model raised RuntimeError"] * 2

    model = Steered()
    model.score = lambda batch: [[Score(1.0)] for _ in batch]  # type: ignore[method-assign]
    run(model, ServeSettings(), test)


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        waiting = asyncio.create_task(batcher.score([item(f"p{n}", "x") for n in range(3)], call=Call()))
        await until(lambda: batcher.waiting[0] == 4)
        with pytest.raises(HttpError, match="full") as refused:
            await batcher.score([item("q", "x")], call=Call())
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        assert batcher.waiting[0] == 4  # nothing was kept of what was refused
        model.gate.set()
        await asyncio.gather(busy, waiting)
        assert batcher.waiting == (0, 0)
        assert values(await batcher.score([item("q", "x")], call=Call())) == [[1]]

    model = Steered()
    settings = ServeSettings(max_queue_tokens=4 * TOKENS + 4, max_item_tokens=2 * TOKENS)
    run(model, settings, test)


def test_an_item_that_is_too_long_is_refused() -> None:
    async def test(batcher: Batcher) -> None:
        with pytest.raises(HttpError, match="at most 100") as refused:
            await batcher.score([item("q", "x" * 1000)], call=Call())
        assert refused.value.status == 413

    run(Steered(), ServeSettings(max_item_tokens=100), test)


def test_what_would_wait_too_long_is_refused_once_the_speed_is_known() -> None:
    async def test(batcher: Batcher) -> None:
        for _ in range(3):  # three batches of 30 ms teach the speed
            model.gate.clear()
            asyncio.get_running_loop().call_later(0.03, model.gate.set)
            await batcher.score([item("p", "x")], call=Call())
        busy = await plug(batcher, model)
        many = asyncio.create_task(batcher.score([item(f"p{n}", "x") for n in range(20)], call=Call()))
        await until(lambda: batcher.waiting[0] == 21)
        assert batcher.full
        with pytest.raises(HttpError, match="more than the") as refused:
            await batcher.score([item("q", "x")], call=Call())
        assert refused.value.status == 429
        model.gate.set()
        await asyncio.gather(busy, many)

    model = Steered()
    run(model, ServeSettings(max_wait_s=0.1), test)


def test_what_stays_of_one_prompt_is_not_looked_at_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waited on a prompt was copied for each batch: twice the requests were four times the looks."""
    looks = [0]

    def gone(queued: Queued) -> bool:
        looks[0] += 1
        return queued.taken or queued.job.dropped

    monkeypatch.setattr(Queued, "gone", property(gone))
    model, loop, counts = Steered(), asyncio.new_event_loop(), []
    for n in (200, 400):
        queue, looks[0] = FairQueue(), 0
        for number in range(n):
            job = Job(model, scoring_batch.score, True, Call(), loop, loop.create_future(), [None], 1, time.monotonic())
            queue.push(job, [item("one prompt", f"reply {number}")], [20])
        taken = []
        while batch := queue.take(200):
            taken += [one.candidates.completions[0].text for one in batch]
        assert taken == [f"reply {number}" for number in range(n)]
        counts.append(looks[0])
    loop.close()
    assert counts[1] < 2.2 * counts[0]


def test_a_deadline_ends_the_wait_and_the_work() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        with pytest.raises(HttpError, match="deadline") as refused:
            await batcher.score([item("late", "x")], call=Call(deadline=time.monotonic() + 0.05))
        assert refused.value.status == 504
        assert batcher.waiting[0] == 1  # only the plug
        model.gate.set()
        await busy
        await batcher.score([item("next", "x")], call=Call())

    model = Steered()
    run(model, ServeSettings(), test)
    assert [one.prompt[0].content for batch in model.batches for one in batch] == ["plug", "next"]


def test_a_hopeless_deadline_is_refused_at_once() -> None:
    async def test(batcher: Batcher) -> None:
        for _ in range(3):
            model.gate.clear()
            asyncio.get_running_loop().call_later(0.03, model.gate.set)
            await batcher.score([item("p", "x")], call=Call())
        busy = await plug(batcher, model)
        many = asyncio.create_task(batcher.score([item(f"p{n}", "x") for n in range(50)], call=Call()))
        await until(lambda: batcher.waiting[0] == 51)
        with pytest.raises(HttpError, match="past your deadline") as refused:
            await batcher.score([item("q", "x")], call=Call(deadline=time.monotonic() + 0.2))
        assert refused.value.status == 429
        model.gate.set()
        await asyncio.gather(busy, many)

    model = Steered()
    run(model, ServeSettings(), test)


def test_cancelled_requests_leave_the_queue_and_the_memory() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        tasks = [asyncio.create_task(batcher.score([item(f"p{n}", "x")], call=Call())) for n in range(500)]
        await until(lambda: batcher.waiting[0] == 501)
        for task in tasks[:-1]:
            task.cancel()
        await asyncio.gather(*tasks[:-1], return_exceptions=True)
        assert batcher.waiting == (2, tasks_tokens())
        assert len(batcher._queue) < 100
        model.gate.set()
        await asyncio.gather(busy, tasks[-1])
        assert batcher.waiting == (0, 0)

    def tasks_tokens() -> int:
        return about_tokens(item("plug", "plug")) + about_tokens(item("p499", "x"))

    model = Steered()
    run(model, ServeSettings(), test)
    assert [one.prompt[0].content for batch in model.batches for one in batch] == ["plug", "p499"]


def test_hot_swap_answers_each_request_by_the_model_of_its_time() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, old)
        before = asyncio.create_task(batcher.score([item("p", "x")], call=Call()))
        await until(lambda: batcher.waiting[0] == 2)
        batcher.swap(new)
        after = asyncio.create_task(batcher.score([item("p", "x"), item("q", "yy")], call=Call()))
        await until(lambda: batcher.waiting[0] == 4)
        old.gate.set()
        answers = await asyncio.gather(busy, before, after)
        assert [values(answer) for answer in answers] == [[[4]], [[1]], [[101], [102]]]
        assert [answer.info.fingerprint for answer in answers] == ["0", "0", "100"]

    old, new = Steered(), Steered(offset=100)
    run(old, ServeSettings(), test)


def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    async def test(batcher: Batcher) -> None:
        busy = await plug(batcher, model)
        waiting = asyncio.create_task(batcher.score([item("p", "x")], call=Call()))
        await until(lambda: batcher.waiting[0] == 2)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await until(lambda: not batcher._open)
        with pytest.raises(HttpError, match="going down") as refused:
            await batcher.score([item("q", "x")], call=Call())
        assert refused.value.status == 503
        model.gate.set()
        await asyncio.gather(busy, closing)
        assert values(await waiting) == [[1]]

    model = Steered()
    run(model, ServeSettings(), test)
