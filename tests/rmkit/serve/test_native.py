"""The native routes: shapes, reasons, groups, components, idempotency, limits."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx
from fastapi import Response

from rmkit.serve.http.app import create_app
from rmkit.serve.http.idempotency import IdempotencyCache
from rmkit.serve.settings import ServeSettings
from rmkit.types import Comparison, Score
from tests.rmkit.serve.serving import Steered, client_of

Test = Callable[[httpx.AsyncClient], Awaitable[Any]]


def run(test: Test, *models: Any, **options: Any) -> Any:
    app = create_app({model.info.name: model for model in models or (Steered(),)}, ServeSettings(**options))

    async def within() -> Any:
        async with client_of(app) as client:
            return await test(client)

    return asyncio.run(asyncio.wait_for(within(), 20))


def ask(body: dict[str, Any], *models: Any, path: str = "/rmkit/v1/score", **options: Any) -> Any:
    """The JSON of one request that must be answered."""

    async def test(client: httpx.AsyncClient) -> Any:
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return run(test, *models, **options)


def one_item(*completions: Any, **more: Any) -> dict[str, Any]:
    return {"items": [{"prompt": "p", "completions": list(completions), **more}]}


def rewards(answer: Any) -> list[Any]:
    return [[score["reward"] for score in row] for row in answer["scores"]]


def test_scores_come_out_whole_and_in_order() -> None:
    rich = Steered(name="rich")
    whole = Score(
        1.5, std=0.25, steps=(0.5, 1.5), aspects={"kind": 2.0}, rationale="why", normalized=0.75, truncated=True
    )
    rich.score = lambda batch: [[whole, Score.failed("no")] for _ in batch]  # type: ignore[method-assign]
    answer = ask(one_item("a", [{"role": "assistant", "content": "b"}]), rich)
    assert answer["model"] == {
        "name": "rich",
        "kind": "explicit",
        "scale": "logit",
        "pointwise": True,
        "fingerprint": "0",
    }
    [[first, second]] = answer["scores"]
    assert first == {
        "value": 1.5,
        "raw": 1.5,
        "reward": 1.5,
        "rewards": [],
        "spans": [],
        "normalized": 0.75,
        "components": {},
        "truncated": True,
        "std": 0.25,
        "steps": [0.5, 1.5],
        "aspects": {"kind": 2.0},
        "rationale": "why",
        "unscored": None,
    }
    assert (second["value"], second["reward"], second["unscored"]) == (None, None, "no")


def test_nothing_that_is_not_a_number_leaves_as_one() -> None:
    odd = Steered(name="odd")
    odd.score = lambda batch: [[Score(math.inf, std=math.nan, steps=(-math.inf,), aspects={"a": math.nan})]]  # type: ignore[method-assign]

    async def test(client: httpx.AsyncClient) -> str:
        return (await client.post("/rmkit/v1/score", json=one_item("a"))).text

    text = run(test, odd)
    [[score]] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} left the service"))["scores"]
    assert (score["value"], score["std"], score["steps"], score["aspects"]) == (None, None, [None], {"a": None})
    assert score["unscored"] == "the model gave inf, not a finite number"


def test_an_infinite_score_is_unscored_for_the_comparison_the_counters_and_the_log_too() -> None:
    odd = Steered(name="odd")
    odd.score = lambda batch: [[Score(math.inf)] for _ in batch]  # type: ignore[method-assign]
    odd.compare = lambda batch: [Comparison(-math.inf) for _ in batch]  # type: ignore[method-assign]
    served: list[Any] = []

    async def test(client: httpx.AsyncClient) -> Any:
        client._transport.app.state.engine.observers += [served.append]  # type: ignore[attr-defined]
        await client.post("/rmkit/v1/score", json=one_item("a"))
        compared = await client.post("/rmkit/v1/compare", json=one_item("a", "b"))
        return compared.json()["comparisons"], (await client.get("/metrics")).text.splitlines()

    [compared], metrics = run(test, odd)
    assert (compared["p_first"], compared["unscored"]) == (None, "the model gave -inf, not a finite number")
    assert 'rmkit_scores_total{model="odd",outcome="unscored"} 1.0' in metrics
    assert not [line for line in metrics if line.startswith("rmkit_reward_sum") and "nf" in line]
    [[score]] = served[0].answer.results
    assert math.isnan(score.value)


def test_messages_steps_and_sources_reach_the_model() -> None:
    model = Steered()
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    call = {"name": "f", "arguments": {"x": 1}}
    completion = {
        "messages": [
            {"role": "assistant", "content": "ab", "tool_calls": [call]},
            {"role": "tool", "content": "t", "tool_call_id": "7"},
            {"role": "assistant", "content": "cd"},
        ],
        "source": "policy",
        "step_ends": [2, 6],
    }
    ask({"items": [{"prompt": prompt, "completions": [completion]}]}, model)
    [[seen]] = model.batches
    assert [(turn.role, turn.content) for turn in seen.prompt] == [("system", "s"), ("user", "u")]
    [made] = seen.completions
    assert (made.text, made.source, made.step_ends) == ("ab\n\ncd", "policy", (2, 6))
    assert made.messages[0].tool_calls == ({"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},)
    assert made.messages[1].tool_call_id == "7"


@pytest.mark.parametrize("path", ["/rmkit/v1/score", "/rmkit/v1/compare"])
def test_tools_reference_and_rubric_reach_the_model_and_part_prompts(path: str) -> None:
    model = Steered()
    plain = {"prompt": "p", "completions": ["ab", "c"]}
    facts = {"tools": [{"name": "add"}], "reference": "72", "rubric": "is brief"}
    ask({"items": [plain, plain | facts, plain | {"rubric": [{"criterion": "is kind"}]}]}, model, path=path)
    seen = [item for batch in model.batches for item in batch]
    assert [(item.tools, item.reference, item.rubric) for item in seen] == [
        ((), None, ()),
        (({"type": "function", "function": {"name": "add"}},), "72", ({"criterion": "is brief"},)),
        ((), None, ({"criterion": "is kind"},)),
    ]


def test_compare_tells_the_probability_of_the_first() -> None:
    answer = ask(one_item("four", "x"), path="/rmkit/v1/compare")
    assert answer["comparisons"][0]["p_first"] == pytest.approx(1 / (1 + math.exp(-3)))
    failed = ask(one_item("nan", "x"), path="/rmkit/v1/compare")["comparisons"][0]
    assert (failed["p_first"], failed["unscored"]) == (None, "nothing there")


def test_models_are_asked_by_name_and_the_first_is_the_default() -> None:
    first, second = Steered(name="first"), Steered(name="second", offset=100)
    assert rewards(ask(one_item("a"), first, second)) == [[1]]
    assert rewards(ask({**one_item("a"), "model": "second"}, first, second)) == [[101]]

    async def test(client: httpx.AsyncClient) -> Any:
        return (await client.get("/rmkit/v1/models")).json()

    listed = run(test, first, second)
    assert (listed["default"], [model["name"] for model in listed["models"]]) == ("first", ["first", "second"])


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 422, "JSON"),
        (b"", 422, "body"),
        (b'{"items": [{"prompt": "secret", "completions": []}]}', 422, "completions"),
        (b'{"items": [{"prompt": "p", "completions": ["a"]}], "modle": "x"}', 422, "modle"),
        (b'{"items": [{"prompt": "p", "completions": ["a"]}], "model": "x"}', 404, "no model 'x'"),
        (b'{"items": [{"prompt": "p", "completions": ["a", "b", "c"]}]}', 413, "at most 2"),
        (b'{"items": [{"prompt": "p", "completions": ["a"], "components": {"t": [1, 2]}}]}', 422, "2 values"),
        (b'{"items": [{"prompt": "p", "completions": ["a"]}], "mix": {"speed": 1}}', 400, "no component 'speed'"),
        (b'{"items": [{"prompt": [{"role": "judge", "content": "x"}], "completions": ["a"]}]}', 422, "role"),
    ],
)
def test_what_makes_no_sense_is_refused_without_quoting_it(body: bytes, status: int, told: str) -> None:
    async def test(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/rmkit/v1/score", content=body, headers={"content-type": "application/json"})

    answer = run(test, max_completions=2)
    assert answer.status_code == status
    assert told in answer.json()["error"]
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_body_over_the_limit_is_refused_declared_or_not() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        declared = await client.post("/rmkit/v1/score", content=b"x" * 2000)
        assert (declared.status_code, declared.headers["connection"]) == (413, "close")

        async def pieces() -> Any:
            for _ in range(20):
                yield b"x" * 100

        assert (await client.post("/rmkit/v1/score", content=pieces())).status_code == 413
        assert (await client.post("/rmkit/v1/score", json=one_item("a"))).status_code == 200

    run(test, max_body_bytes=1000, max_pending_bytes=1000)


def test_the_bytes_of_all_requests_together_are_bounded() -> None:
    model = Steered()
    body = one_item("a" * 1500)

    async def test(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        first = asyncio.create_task(client.post("/rmkit/v1/score", json=body))
        await asyncio.to_thread(model.started.wait, 20)
        second = await client.post("/rmkit/v1/score", json=body)
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        model.gate.set()
        assert (await first).status_code == 200
        assert (await client.post("/rmkit/v1/score", json=body)).status_code == 200

    run(test, model, max_body_bytes=2000, max_pending_bytes=2500)


def test_a_full_queue_is_429_and_a_missed_deadline_504() -> None:
    model = Steered()

    async def test(client: httpx.AsyncClient) -> None:
        model.gate.clear()
        first = asyncio.create_task(client.post("/rmkit/v1/score", json=one_item("a" * 200)))
        await asyncio.to_thread(model.started.wait, 20)
        late = await client.post("/rmkit/v1/score", json={**one_item("b"), "timeout_s": 0.05})
        assert (late.status_code, "deadline" in late.json()["error"]) == (504, True)
        full = await client.post("/rmkit/v1/score", json=one_item("a" * 200))
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) >= 1
        model.gate.set()
        assert (await first).status_code == 200

    run(test, model, max_queue_tokens=110, max_item_tokens=100)


def test_a_client_that_leaves_takes_its_request_out_of_the_queue() -> None:
    model = Steered()
    app = create_app({"steered": model})

    async def test() -> None:
        async with client_of(app) as client:
            model.gate.clear()
            first = asyncio.create_task(client.post("/rmkit/v1/score", json=one_item("first")))
            await asyncio.to_thread(model.started.wait, 20)
            received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            body = json.dumps(one_item("gone")).encode()
            received.put_nowait({"type": "http.request", "body": body, "more_body": False})
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/rmkit/v1/score",
                "raw_path": b"",
                "query_string": b"",
                "headers": [(b"content-type", b"application/json")],
                "client": ("c", 1),
                "server": ("s", 1),
                "scheme": "http",
                "root_path": "",
                "http_version": "1.1",
                "asgi": {"version": "3.0"},
            }

            async def send(message: Any) -> None:
                pytest.fail(f"an answer for a client that has gone: {message}")

            gone = asyncio.create_task(app(scope, received.get, send))
            while app.state.engine.batchers["steered"].waiting[0] < 2:
                await asyncio.sleep(0.002)
            received.put_nowait({"type": "http.disconnect"})
            await gone
            assert app.state.engine.batchers["steered"].waiting[0] == 1
            model.gate.set()
            assert (await first).status_code == 200

    asyncio.run(asyncio.wait_for(test(), 20))
    assert [[c.text for c in one.completions] for batch in model.batches for one in batch] == [["first"]]


def test_groups_are_transformed_within_a_request() -> None:
    """Lengths 1, 3 | 2, 6 | 5: two groups by id and one by item; a failure counts in no mean."""
    items = [
        {"prompt": "p", "completions": ["a", "nan"], "group_id": "g"},
        {"prompt": "p", "completions": ["aaa"], "group_id": "g"},
        {"prompt": "q", "completions": ["aa", "aaaaaa"], "group_id": "h"},
        {"prompt": "r", "completions": ["aaaaa"]},
    ]
    assert rewards(ask({"items": items, "chain": "center"})) == [[-1, None], [1], [-2, 2], [0]]
    assert rewards(ask({"items": items, "chain": "z_score"})) == [[-1, None], [1], [-1, 1], [0]]
    answer = ask({"items": items, "chain": "leave_one_out"})
    assert rewards(answer) == [[-2, None], [2], [-4, 4], [None]]
    assert answer["scores"][3][0]["unscored"] == "the group is too small for this transform"
    assert [score["value"] for score in answer["scores"][2]] == [2, 6]  # the raw value stays


def test_requests_of_one_group_wait_for_each_other() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        def part(text: str, **more: Any) -> Any:
            body = {**one_item(text, group_id="g", group_size=3), "chain": "center", **more}
            return client.post("/rmkit/v1/score", json=body)

        answers = await asyncio.gather(part("a"), part("aaa"), part("aaaaa"))
        assert [rewards(answer.json()) for answer in answers] == [[[-2]], [[0]], [[2]]]
        lonely = (await part("a", timeout_s=0.1)).json()["scores"][0][0]
        assert (lonely["value"], lonely["reward"]) == (1, None)
        assert lonely["unscored"] == "only 1 of the group's 3 completions came before the deadline"

    run(test)


ODD_NUMBERS = {
    "NaN": "nan, not a finite number",
    "Infinity": "inf, not a finite number",
    "-Infinity": "-inf, not a finite number",
    "1e400": "inf, not a finite number",
    "1" + 400 * "0": "inf, not a finite number",
    '"nan"': "nan, not a finite number",
    "null": "missing",
}


@pytest.mark.parametrize("odd", list(ODD_NUMBERS), ids=lambda odd: odd[:9])
def test_an_odd_number_makes_its_own_completion_unscored_and_moves_no_other(odd: str) -> None:
    """Tests 1, ?, 4, 7 over lengths 1 to 4, mixed as tests + 10 * length: 11, ?, 34, 47."""
    right = {
        "center": [11 - 92 / 3, None, 34 - 92 / 3, 47 - 92 / 3],
        "leave_one_out": [11 - 81 / 2, None, 34 - 58 / 2, 47 - 45 / 2],
        "rank": [0, None, 0.5, 1],
    }
    spread = statistics.pstdev([11, 34, 47])
    right["z_score"] = [one if one is None else one / spread for one in right["center"]]
    for transform, expected in right.items():
        body = {
            **one_item("a", "aa", "aaa", "aaaa", components={"tests": [1, "?", 4, 7]}),
            "mix": {"tests": 1, "reward": 10},
            "chain": transform,
        }
        content = json.dumps(body).replace('"?"', odd)

        async def test(client: httpx.AsyncClient, content: str = content) -> httpx.Response:
            return await client.post("/rmkit/v1/score", content=content, headers={"content-type": "application/json"})

        [row] = run(test).json()["scores"]
        assert [score["reward"] for score in row] == [one if one is None else pytest.approx(one) for one in expected]
        reasons = [score["unscored"] for score in row]
        assert reasons == [None, f"the component 'tests' is {ODD_NUMBERS[odd]}", None, None]
        assert row[1]["components"] == {"reward": 2}


def test_huge_numbers_are_answered_and_what_no_number_holds_says_so() -> None:
    def asked(values: list[float], transform: str, weight: float = 1.0) -> Any:
        texts = ["a"] * len(values)
        body = {**one_item(*texts, components={"t": values}), "mix": {"t": weight}, "chain": transform}
        [row] = ask(body)["scores"]
        return [(score["reward"], score["unscored"]) for score in row]

    assert asked([1e308, 1e308, -1e308], "z_score") == [
        (pytest.approx(2**-0.5), None),
        (pytest.approx(2**-0.5), None),
        (pytest.approx(-(2**0.5)), None),
    ]
    too_large = "the transformed reward is too large for a number"
    assert asked([1.5e308, -1.5e308], "leave_one_out") == [(None, too_large)] * 2
    overflow = "the mix of its components is inf, not a finite number"
    assert asked([1e308, 3.0, 1.0], "center", weight=10.0) == [(None, overflow), (10, None), (-10, None)]


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_weight_that_is_no_number_refuses_the_request(weight: str) -> None:
    async def test(client: httpx.AsyncClient) -> httpx.Response:
        content = json.dumps({**one_item("a"), "mix": {"reward": "?"}}).replace('"?"', weight)
        return await client.post("/rmkit/v1/score", content=content, headers={"content-type": "application/json"})

    answer = run(test)
    assert answer.status_code == 422
    assert answer.json()["error"] == "body.mix.reward: Input should be a finite number"


def test_a_group_across_a_hot_swap_has_no_reward_and_says_so() -> None:
    """Two scales, 100 apart: a group of both would be centered to -50 and 50."""

    async def test(client: httpx.AsyncClient) -> None:
        batcher = client._transport.app.state.engine.batchers["steered"]  # type: ignore[attr-defined]

        def part(text: str, **more: Any) -> Any:
            body = {**one_item(text, group_id="g", group_size=2), "chain": "center", **more}
            return asyncio.create_task(client.post("/rmkit/v1/score", json=body))

        first = part("a")
        while not client._transport.app.state.gather.waiting:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        batcher.swap(Steered(offset=100))
        for answer, value in zip(await asyncio.gather(first, part("aaa")), (1, 103), strict=True):
            [[score]] = answer.json()["scores"]
            assert (score["value"], score["reward"]) == (value, None)
            assert "swapped in between (fingerprints 0, 100)" in score["unscored"]
        again = await asyncio.gather(part("a"), part("aaa"))
        assert [rewards(answer.json()) for answer in again] == [[[-1]], [[1]]]

    run(test)


def test_requests_with_different_mixes_are_different_groups() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        def part(text: str, weight: float) -> Any:
            more = {"mix": {"reward": weight}, "chain": "center"}
            return client.post("/rmkit/v1/score", json={**one_item(text, group_id="g", group_size=2), **more})

        answers = await asyncio.gather(part("a", 1), part("aa", 10), part("aaa", 1), part("aaaa", 10))
        assert [rewards(answer.json()) for answer in answers] == [[[-1]], [[-10]], [[1]], [[10]]]

    run(test)


def test_a_groupwise_model_gets_the_group_as_one() -> None:
    model = Steered(pointwise=False)
    items = [
        {"prompt": "p", "completions": ["a", "aa"], "group_id": "g", "source": "s"},
        {"prompt": "q", "completions": ["aaaa"]},
        {"prompt": "p", "completions": ["aaa"], "group_id": "g"},
    ]
    assert rewards(ask({"items": items}, model)) == [[1, 2], [4], [3]]
    assert [[c.text for c in one.completions] for one in model.batches[0]] == [["a", "aa", "aaa"], ["aaaa"]]

    async def test(client: httpx.AsyncClient) -> list[str]:
        part = {"items": [{**items[0], "group_size": 3}]}
        other = {"items": [items[0], {**items[2], "prompt": "other"}]}
        return [(await client.post("/rmkit/v1/score", json=body)).json()["error"] for body in (part, other)]

    assert run(test, Steered(pointwise=False)) == [
        "this model scores a group as a whole; send all of group 'g' in one request",
        "the completions of group 'g' answer different prompts",
    ]


def test_components_are_mixed_and_a_missing_one_makes_the_reward_missing() -> None:
    body = one_item("the answer is 4", "it is 5", reference="4", components={"tests": [1.0, None]})
    answer = ask({**body, "mix": {"reward": 0.1, "exact_match": 2, "tests": 3}})
    right, wrong = answer["scores"][0]
    assert right["components"] == {"reward": 15, "exact_match": 1, "tests": 1}
    assert right["reward"] == pytest.approx(0.1 * 15 + 2 + 3)
    assert (wrong["value"], wrong["reward"], wrong["unscored"]) == (7, None, "the component 'tests' is missing")
    unreferenced = ask({**one_item("4"), "mix": {"exact_match": 1}})["scores"][0][0]
    assert unreferenced["unscored"] == "exact_match: there is no reference answer to verify against"


def test_an_idempotency_key_is_answered_and_scored_once() -> None:
    model = Steered()

    async def test(client: httpx.AsyncClient) -> None:
        headers = {"Idempotency-Key": "k"}

        def post() -> Any:
            return client.post("/rmkit/v1/score", json=one_item("a"), headers=headers)

        both = await asyncio.gather(post(), post())
        again = await post()
        assert len({answer.content for answer in (*both, again)}) == 1
        assert again.headers["idempotent-replayed"] == "true"
        other = await client.post("/rmkit/v1/score", json=one_item("b"), headers=headers)
        assert other.status_code == 409

    run(test, model)
    assert len(model.batches) == 1


def test_an_idempotency_key_of_a_refused_request_may_come_again() -> None:
    model = Steered()

    async def test(client: httpx.AsyncClient) -> None:
        headers = {"Idempotency-Key": "k"}
        body = {**one_item("a"), "timeout_s": 0.05}
        model.gate.clear()
        assert (await client.post("/rmkit/v1/score", json=body, headers=headers)).status_code == 504
        model.gate.set()
        assert (await client.post("/rmkit/v1/score", json=body, headers=headers)).status_code == 200

    run(test, model)


def test_an_idempotent_request_costs_the_same_however_many_keys_are_known() -> None:
    replies = IdempotencyCache(room_bytes=2**30)

    async def answer() -> Response:
        return Response(b"{}")

    async def seconds(start: int, n: int) -> list[float]:
        taken = []
        for number in range(start, start + n):
            since = time.perf_counter()
            await replies.once(("client", "/score", str(number)), b"body", answer)
            taken.append(time.perf_counter() - since)
        return taken

    async def test() -> tuple[float, float]:
        few = await seconds(0, 200)
        await seconds(200, 20_000)
        return statistics.median(few), statistics.median(await seconds(20_200, 200))

    few, many = asyncio.run(test())
    assert many < 5 * few  # a walk over 20,000 keys takes a thousand times as long
    assert len(replies._answers) == 20_400


def test_many_small_answers_fill_the_room_too() -> None:
    replies = IdempotencyCache(room_bytes=100_000)

    async def answer() -> Response:
        return Response(b"{}")

    async def test() -> Response:
        for number in range(1000):
            await replies.once(("client", "/score", str(number)), b"body", answer)
        return await replies.once(("client", "/score", "999"), b"body", answer)

    assert asyncio.run(test()).headers["idempotent-replayed"] == "true"
    assert len(replies._answers) < 100
    assert replies._bytes <= 100_000


def test_metrics_count_what_happened() -> None:
    async def test(client: httpx.AsyncClient) -> str:
        await client.post("/rmkit/v1/score", json=one_item("aaa", "nan"))
        await client.get("/no/such/path")
        return (await client.get("/metrics")).text

    lines = run(test).splitlines()
    assert 'rmkit_scores_total{model="steered",outcome="scored"} 1.0' in lines
    assert 'rmkit_scores_total{model="steered",outcome="unscored"} 1.0' in lines
    assert 'rmkit_reward_sum{model="steered"} 3.0' in lines
    assert 'rmkit_requests_total{route="/rmkit/v1/score",status="200"} 1.0' in lines
    assert 'rmkit_requests_total{route="none",status="404"} 1.0' in lines
    assert 'rmkit_model{fingerprint="0",model="steered"} 1.0' in lines


def test_health_is_told_and_the_document_names_every_native_route() -> None:
    async def test(client: httpx.AsyncClient) -> Any:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"ready": True}
        return (await client.get("/openapi.json")).json()

    document = run(test)
    assert {"/rmkit/v1/score", "/rmkit/v1/compare", "/rmkit/v1/models", "/healthz", "/readyz", "/metrics"} <= set(
        document["paths"]
    )
    body = document["paths"]["/rmkit/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    examples = document["components"]["schemas"][body["$ref"].rsplit("/", 1)[-1]]["examples"]
    served = {"helpful": Steered(name="helpful")}
    assert len(examples) == 3
    for example in examples:
        ask(example, *served.values())
