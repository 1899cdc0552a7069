"""The engine and the endpoint back end against a scripted server over real HTTP: what goes wrong, and what it costs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, Script, ScriptedEndpoint
from rmkit.errors import EndpointError, UsageError
from rmkit.generate import Budget, Engine, Limits, Prices, Request
from rmkit.generate.call_cache import KIND, bill
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.ledger import open_ledger
from rmkit.types import Message

ROOT = Path(__file__).parents[3]
KEY = "sk-very-secret-0123"
QUICK = Limits(concurrency=8, attempts=3, wait_s=0.01)


def ask(text: str, **options: Any) -> Request:
    fields: dict[str, Any] = {"prompt": (Message("user", text),), "max_tokens": 20}
    return Request(**(fields | options))


def echo(asked: dict[str, Any]) -> Reply:
    return Reply(text=f"re: {asked['messages'][-1]['content']}")


def in_turn(*replies: Reply) -> Script:
    """Each request gets the next reply, the last one for good."""
    left = list(replies)
    lock = threading.Lock()

    def script(asked: dict[str, Any]) -> Reply:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return script


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[ScriptedEndpoint, Callable[..., Engine]]]]:
    """`serve(script)` gives the endpoint and a function that makes engines for it; all are closed at the end."""
    opened: list[Any] = []

    def start(script: Script, **endpoint_options: Any) -> tuple[ScriptedEndpoint, Callable[..., Engine]]:
        endpoint = ScriptedEndpoint(script).__enter__()
        opened.append(endpoint)

        def engine(**options: Any) -> Engine:
            settings = {"base_url": endpoint.base_url, "model": "m", "key": KEY} | endpoint_options
            made = Engine(EndpointGenerator(**settings), **({"limits": QUICK} | options))
            opened.append(made)
            return made

        return endpoint, engine

    yield start
    for each in reversed(opened):
        each.__exit__(None, None, None)


def test_replies_come_in_order_with_tokens_and_cost(serve: Any) -> None:
    def script(asked: dict[str, Any]) -> Reply:
        text = asked["messages"][-1]["content"]
        return Reply(text=f"re: {text}", prompt_tokens=1000, completion_tokens=500, delay_s=0.02 * (text == "0"))

    endpoint, engine = serve(script, prices=Prices(prompt=2.0, completion=8.0))
    made = engine()
    samples = made.samples([ask(str(i)) for i in range(30)])
    assert [sample.text for sample in samples] == [f"re: {i}" for i in range(30)]
    assert {sample.usd for sample in samples} == {0.006}  # 1000 x 2e-6 + 500 x 8e-6
    assert (made.tally.calls, made.tally.prompt_tokens, made.tally.completion_tokens) == (30, 30_000, 15_000)
    assert made.tally.usd == pytest.approx(0.18)
    sent = endpoint.bodies[0]
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("m", 20, 0.0)
    assert {"logprobs", "seed", "response_format", "n"}.isdisjoint(sent)
    assert f"Authorization: Bearer {KEY}" in endpoint.headers[0]


def test_no_more_requests_are_in_flight_than_allowed(serve: Any) -> None:
    now: Counter[str] = Counter()

    def script(asked: dict[str, Any]) -> Reply:
        now["in"] += 1
        now["most"] = max(now["most"], now["in"])
        threading.Timer(0.03, lambda: now.subtract(["in"])).start()
        return Reply(text="ok", delay_s=0.04)

    _, engine = serve(script)
    engine(limits=Limits(concurrency=5)).samples([ask(str(i)) for i in range(20)])
    assert now["most"] == 5


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(status=429, text="slow down", headers={"retry-after": "0"}),
        Reply(status=500, text="oops"),
        Reply(status=503, text="loading"),
        Reply(text="never arrives", cut=60),
        Reply(text="", cut=0),
        Reply(body=b'{"choices": [{"mess'),
        Reply(body=b'{"choices": []}'),
        Reply(body=b"<html>gateway</html>"),
        Reply(text="too late", delay_s=2.0),
    ],
    ids=["429", "500", "503", "cut-body", "cut-at-once", "half-json", "no-choice", "html", "timeout"],
)
def test_a_passing_trouble_is_tried_again(serve: Any, trouble: Reply) -> None:
    _, engine = serve(in_turn(trouble, trouble, Reply(text="fine")), timeout_s=0.3)
    made = engine()
    [sample] = made.samples([ask("x")])
    assert (sample.text, sample.error) == ("fine", None)
    assert (made.tally.calls, made.tally.retries, made.tally.failed) == (1, 2, 0)


def test_a_lasting_trouble_fails_its_request_only(serve: Any) -> None:
    endpoint, engine = serve(lambda asked: Reply(status=500, text="bad") if "3" in str(asked) else echo(asked))
    made = engine()
    samples = made.samples([ask(str(i)) for i in range(6)])
    assert [sample.error is None for sample in samples] == [True, True, True, False, True, True]
    assert samples[3].error == "no answer after 3 attempts: HTTP 500: bad"
    assert endpoint.n_requests == 5 + 3
    assert (made.tally.failed, made.tally.reasons) == (1, {"no answer after 3 attempts": 1})


def test_retry_after_is_respected(serve: Any) -> None:
    _, engine = serve(in_turn(Reply(status=429, headers={"retry-after": "0.4"}), Reply(text="fine")))
    began = time.monotonic()
    engine().samples([ask("x")])
    assert time.monotonic() - began >= 0.4


def test_what_the_server_will_never_answer_is_refused_without_retries(serve: Any) -> None:
    endpoint, engine = serve(lambda asked: Reply(status=400, text="maximum context length is 10"))
    made = engine()
    [sample] = made.samples([ask("long")])
    assert sample.error == "refused: HTTP 400: maximum context length is 10"
    assert endpoint.n_requests == 1
    assert made.tally.retries == 0


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=401, text=f"Incorrect API key provided: {KEY}"), r"refuses the key: HTTP 401: .*\*\*\*; check"),
        (Reply(status=403, text="no"), "refuses the key"),
        (Reply(status=404, text="model m does not exist"), "not there: HTTP 404: model m does not exist; check"),
        (Reply(status=429, body=b'{"error": {"message": "pay", "code": "insufficient_quota"}}'), "no credit left"),
        (Reply(status=302, headers={"location": "http://elsewhere/"}), "not there"),
    ],
    ids=["key", "forbidden", "model", "quota", "redirect"],
)
def test_what_no_request_survives_ends_the_run_and_never_shows_the_key(
    serve: Any, reply: Reply, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    endpoint, engine = serve(lambda asked: reply)
    with open_ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(EndpointError, match=message) as caught:
        engine(ledger=ledger).samples([ask(str(i)) for i in range(50)])
    assert endpoint.n_requests <= 2 * QUICK.concurrency
    assert KEY not in str(caught.value) + repr(caught.value.__cause__) + caplog.text
    assert not [path for path in tmp_path.iterdir() if KEY.encode() in path.read_bytes()]


def test_nobody_at_the_address_is_one_clear_error() -> None:
    generator = EndpointGenerator(base_url="http://127.0.0.1:9/v1", model="m")
    with (
        Engine(generator, limits=QUICK) as engine,
        pytest.raises(EndpointError, match="does not answer after 3 attempts"),
    ):
        engine.samples([ask("x"), ask("y")])


@pytest.mark.parametrize("url", ["localhost:80", "http://u:p@host/v1", "ftp://host/v1", "http://host/v1?key=1", ""])
def test_addresses_that_are_none_or_carry_a_key_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="keys come from key_env") as caught:
        EndpointGenerator(base_url=url, model="m")
    assert "u:p" not in str(caught.value)


def test_an_endpoint_that_breaks_down_for_good_stops_the_run(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmkit.generate.engine.FAILURES_IN_A_ROW", 4)
    endpoint, engine = serve(lambda asked: Reply(status=500, text="down"))
    with pytest.raises(EndpointError, match="what was answered is kept"):
        engine().samples([ask(str(i)) for i in range(100)])
    assert endpoint.n_requests < 60


def test_refusals_and_cut_replies_are_samples_that_say_so(serve: Any) -> None:
    _, engine = serve(
        in_turn(Reply(refusal="I will not"), Reply(text="cut of", finish="length"), Reply(finish="content_filter"))
    )
    made = engine(limits=Limits(concurrency=1))
    first, second, third = made.samples([ask("a"), ask("b"), ask("c")])
    assert (first.text, first.finish) == ("I will not", "filter")
    assert (second.text, second.finish) == ("cut of", "length")
    assert third.finish == "filter"
    assert made.tally.truncated == 1


def answer(content: Any = "ok", *, usage: str = '{"prompt_tokens": 8, "completion_tokens": 2}', **choice: Any) -> bytes:
    one = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"} | choice
    return f'{{"choices": [{json.dumps(one)}], "usage": {usage}}}'.encode()


ODD_CONTENT = {
    "a number": (4.5, "4.5"),
    "an object": ({"verdict": "A"}, '{"verdict": "A"}'),
    "true": (True, "true"),
    "parts that are none": ([1, None], "[1, null]"),
    "an image": (
        [{"type": "image_url", "image_url": {"url": "x"}}],
        '[{"type": "image_url", "image_url": {"url": "x"}}]',
    ),
}


@pytest.mark.parametrize(("content", "words"), ODD_CONTENT.values(), ids=ODD_CONTENT.keys())
def test_an_answer_that_is_no_reply_is_paid_for_and_kept_with_its_words(
    serve: Any, tmp_path: Path, content: Any, words: str
) -> None:
    def script(asked: dict[str, Any]) -> Reply:
        return Reply(body=answer(content)) if "odd" in str(asked) else echo(asked)

    endpoint, engine = serve(script, prices=Prices(prompt=1e6, completion=1e6))  # a dollar a token
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        made = engine(ledger=ledger)
        odd, fine = made.samples([ask("odd"), ask("x")])
        assert (odd.finish, odd.text, odd.error, odd.usd) == ("malformed", words, None, 10.0)
        assert odd.no_reply == f"the answer is no reply: {words}"
        assert (fine.text, fine.no_reply) == ("re: x", None)
        assert (made.tally.calls, made.tally.failed, made.tally.usd) == (2, 0, 120.0)
        assert engine(ledger=ledger).samples([ask("odd")]) == [odd]  # not paid again
    assert endpoint.n_requests == 2


TEXTS = {
    "parts of text": (answer([{"type": "text", "text": "Ver"}, {"type": "text", "text": "dict"}]), "Verdict"),
    "parts beside a thought": (answer([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "ok"}]), "ok"),
    "none beside a tool call": (answer(None, message={"content": None, "tool_calls": []}), ""),
    "no content at all": (answer(message={"role": "assistant"}), ""),
    "half a surrogate pair": (answer("ok \ud83d"), "ok ?"),
}


@pytest.mark.parametrize(("body", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_content_in_other_forms_is_read(serve: Any, tmp_path: Path, body: bytes, text: str) -> None:
    _, engine = serve(lambda asked: Reply(body=body))
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        [sample] = engine(ledger=ledger).samples([ask("x")])
    assert (sample.text, sample.finish, sample.usd, sample.no_reply) == (text, "stop", 0.0, None)


@pytest.mark.parametrize(
    "usage",
    ["NaN", "[]", '"8"', "7"]
    + [
        f'{{"prompt_tokens": {odd}, "completion_tokens": {odd}}}'
        for odd in ("NaN", "1e400", "-5", '"8"', "true", "[]", "9" * 400)
    ],
)
def test_token_counts_that_are_none_are_estimated_from_the_texts(serve: Any, usage: str) -> None:
    _, engine = serve(lambda asked: Reply(body=answer("a" * 24, usage=usage)), prices=Prices(prompt=1e6))
    [sample] = engine(budget=Budget(max_usd=1000)).samples([ask("x" * 40)])
    assert (sample.prompt_tokens, sample.completion_tokens, sample.usd) == (10, 6, 10.0)


def _top(**entry: Any) -> list[Any]:
    return [{"token": "A", "logprob": -0.5} | entry]


@pytest.mark.parametrize(
    ("logprobs", "first"),
    [
        ({"content": _top(top_logprobs=[{"token": "A", "logprob": 0.25}])}, -0.5),
        ({"content": _top(logprob=float("nan"))}, -1e4),
        ({"content": _top(logprob=float("inf"))}, 0.0),
        ({"content": _top(token="\ud83d")}, -0.5),
        ({"content": _top(logprob="-0.5")}, None),
        ({"content": _top(token=None)}, None),
        ({"content": _top(top_logprobs=["A"])}, None),
        ({"content": _top(top_logprobs={"A": -0.5})}, None),
        ({"content": ["A"]}, None),
        ({"content": {"A": -0.5}}, None),
        ([-0.5], None),
        ({"tokens": ["A"], "token_logprobs": [-0.5]}, None),
        ("A", None),
    ],
)
def test_log_probabilities_in_no_known_form_are_left_out(
    serve: Any, tmp_path: Path, logprobs: Any, first: float | None
) -> None:
    def script(asked: dict[str, Any]) -> Reply:
        probe = asked["max_tokens"] == 1
        return (
            Reply(text="A", logprobs=(("A", -0.1, {"A": -0.1}),))
            if probe
            else Reply(body=answer("A", logprobs=logprobs))
        )

    _, engine = serve(script)
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        [sample] = engine(ledger=ledger).samples([ask("x", top_logprobs=5)])
    assert (sample.text, sample.error) == ("A", None)
    assert [token.logprob for token in sample.logprobs] == ([] if first is None else [first])
    assert all(p <= 0 for token in sample.logprobs for _, p in token.top)


DEEP = b"[" * 100_000
NO_COMPLETIONS = {
    "deep JSON": (DEEP, "the answer is no JSON: [[["),
    "deep JSON inside": (b'{"choices": [{"message": {"content": ' + DEEP, "the answer is no JSON: {"),
    "an error": (
        b'{"error": {"message": "model overloaded", "type": "server"}}',
        "no chat completion: model overloaded",
    ),
    "an error as text": (b'{"error": "out of memory"}', "no chat completion: out of memory"),
    "another error": (b'{"object": "error", "message": "bad", "code": 40303}', "no chat completion: bad"),
    "with a status that passes": (b'{"error": {"message": "slow down", "code": 429}}', "HTTP 429: slow down"),
    "a list": (b'[{"error": "x"}]', "no chat completion: [{"),
    "another protocol": (b'{"choices": [{"text": "A"}]}', "no chat completion: {"),
    "a message that is none": (b'{"choices": [{"message": "A"}]}', "no chat completion: {"),
}


@pytest.mark.parametrize(("body", "words"), NO_COMPLETIONS.values(), ids=NO_COMPLETIONS.keys())
def test_an_error_under_status_200_fails_its_request_only_in_the_servers_words(
    serve: Any, body: bytes, words: str
) -> None:
    _, engine = serve(lambda asked: Reply(body=body) if "odd" in str(asked) else echo(asked))
    made = engine()
    fine, odd, last = made.samples([ask("a"), ask("odd"), ask("b")])
    assert (fine.text, last.text) == ("re: a", "re: b")
    assert words in (odd.error or "")
    assert (made.tally.calls, made.tally.failed) == (2, 1)


def test_errors_under_status_200_that_will_not_pass_are_treated_as_their_status(serve: Any) -> None:
    refusal = b'{"error": {"message": "prompt too long", "code": 400}}'
    endpoint, engine = serve(lambda asked: Reply(body=refusal))
    assert engine().samples([ask("x")])[0].error == "refused: HTTP 400: prompt too long"
    assert endpoint.n_requests == 1
    _, engine = serve(lambda asked: Reply(body=b'{"error": {"message": "no such key", "code": 401}}'))
    with pytest.raises(EndpointError, match="refuses the key: HTTP 401: no such key"):
        engine().samples([ask("x")])


def test_an_error_inside_a_choice_is_a_malformed_answer(serve: Any) -> None:
    broken = answer("Verdi", error={"message": "upstream broke off", "code": 502}, finish_reason="error")
    _, engine = serve(in_turn(Reply(body=broken), Reply(body=answer("Verdi", finish_reason="error"))))
    first, second = engine(limits=Limits(concurrency=1)).samples([ask("a"), ask("b")])
    assert (first.finish, first.text) == ("malformed", "upstream broke off")
    assert second.no_reply == "the answer is no reply: Verdi"


@pytest.mark.parametrize("status", [400, 500])
def test_deep_json_under_an_error_status_is_quoted(serve: Any, status: int) -> None:
    _, engine = serve(lambda asked: Reply(status=status, body=DEEP))
    [sample] = engine().samples([ask("x")])
    assert f"HTTP {status}: [[[" in (sample.error or "")


# ---- what the server honours ----


def test_log_probabilities_are_read_where_the_server_gives_them(serve: Any) -> None:
    scripted = Reply(text="A", logprobs=(("A", -0.25, {"A": -0.25, " B": float("-inf")}),))
    endpoint, engine = serve(lambda asked: scripted)
    [sample] = engine().samples([ask("x", top_logprobs=5)])
    assert sample.logprobs[0].top == (("A", -0.25), (" B", -1e4))
    assert endpoint.bodies[0]["max_tokens"] == 1  # the probe came first
    assert endpoint.bodies[1]["logprobs"] is True
    assert endpoint.bodies[1]["top_logprobs"] == 5


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "ignores"])
def test_fields_that_a_server_refuses_or_ignores_are_left_out(serve: Any, silent: bool) -> None:
    extras = {"logprobs", "top_logprobs", "response_format", "seed"}

    def script(asked: dict[str, Any]) -> Reply:
        if not silent and extras & set(asked):
            return Reply(status=422, text=f"Unexpected fields in the request: {extras & set(asked)}")
        return Reply(text="plain")

    endpoint, engine = serve(script)
    asked = ask("x", top_logprobs=5, temperature=1.0, schema={"type": "object"})
    samples = engine().samples(asked.samples(4))
    assert [(sample.text, sample.logprobs, sample.error) for sample in samples] == [("plain", (), None)] * 4
    assert endpoint.n_requests == 3 + 4  # each field was asked once
    assert not {"logprobs", "response_format"} & set(endpoint.bodies[-1])
    assert ("seed" in endpoint.bodies[-1]) == silent  # a seed that is ignored does no harm


def test_a_schema_is_sent_where_it_is_honoured(serve: Any) -> None:
    endpoint, engine = serve(lambda asked: Reply(text='{"a": 1}' if "response_format" in asked else "Hi"))
    schema = {"type": "object", "properties": {"v": {"enum": ["A", "B"]}}}
    engine().samples([ask("x", schema=schema)])
    assert endpoint.bodies[-1]["response_format"]["json_schema"]["schema"] == schema


# ---- the bill ----


def test_an_answer_is_paid_once(serve: Any, tmp_path: Path) -> None:
    endpoint, engine = serve(echo, prices=Prices(prompt=1.0))
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        first = engine(ledger=ledger, purpose="judge one").samples([ask("a"), ask("b"), ask("a")])
        second = engine(ledger=ledger).samples([ask("b"), ask("a"), ask("c"), ask("a", seed=1)])
        assert endpoint.n_requests == 2 + 2
        assert first[0] == second[1]
        assert [sample.cached for sample in [*first, *second]] == [False, False, True, True, True, False, False]
        assert [(row["purpose"], row["calls"]) for row in bill(ledger)] == [("generate", 2), ("judge one", 2)]
        assert sum(row["usd"] for row in bill(ledger)) == pytest.approx(4 * 100e-6)


def test_failures_are_not_kept(serve: Any, tmp_path: Path) -> None:
    _, engine = serve(in_turn(Reply(status=400, text="no"), Reply(text="yes")))
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        assert engine(ledger=ledger).samples([ask("a")])[0].error
        assert engine(ledger=ledger).samples([ask("a")])[0].text == "yes"


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 21},
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"seed": 1},
        {"stop": ("x",)},
        {"top_logprobs": 1},
        {"schema": {"type": "object"}},
        {"prompt": (Message("system", "x"),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_could_change_the_reply_changes_its_key(change: dict[str, Any]) -> None:
    assert ask("x").key("m") != ask("x", **change).key("m")
    assert ask("x").key("m") != ask("x").key("other")


@pytest.mark.parametrize("limit", [{"max_usd": 0.0105}, {"max_tokens": 1050}], ids=["usd", "tokens"])
def test_a_budget_holds_whatever_is_in_flight(serve: Any, limit: dict[str, Any]) -> None:
    # 100 tokens and $0.001 a call: ten fit. At worst a call takes 60 + 16 + 16 tokens of prompt and 50 of reply.
    def script(asked: dict[str, Any]) -> Reply:
        return Reply(text="ok", prompt_tokens=50, completion_tokens=50, delay_s=0.01)

    endpoint, engine = serve(script, prices=Prices(prompt=10.0, completion=10.0))
    budget = Budget(**limit)
    made = engine(budget=budget)
    samples = made.samples([ask(f"{i:060}", max_tokens=50) for i in range(40)])
    answered = [sample for sample in samples if sample.error is None]
    assert len(answered) == endpoint.n_requests
    assert 9 <= len(answered) <= 10  # never over; up to one worst case under
    assert budget.spent.usd <= 0.0105
    assert budget.spent.tokens <= 1050
    assert {sample.error for sample in samples} - {None} == {f"the budget of {budget.limit} is spent"}
    assert made.tally.failed == 40 - len(answered)


def test_attempts_that_broke_off_count_against_the_budget(serve: Any) -> None:
    _, engine = serve(lambda asked: Reply(text="x", cut=60), prices=Prices(completion=1000.0))
    made = engine(budget=Budget(max_usd=0.05))
    [sample] = made.samples([ask("x", max_tokens=20)])  # $0.02 at worst, three attempts wanted
    assert sample.error == "the budget of $0.05 is spent"
    assert made.tally.usd == 0
    assert made.tally.perhaps_usd == pytest.approx(0.04)


def test_an_empty_budget_makes_no_call_and_cached_answers_are_free(serve: Any, tmp_path: Path) -> None:
    endpoint, engine = serve(echo)
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        engine(ledger=ledger).samples([ask("a")])
        samples = engine(ledger=ledger, budget=Budget(max_tokens=0)).samples([ask("a"), ask("b")])
    assert [sample.error is None for sample in samples] == [True, False]
    assert endpoint.n_requests == 1


def test_a_budget_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="max_usd must be a number >= 0, got -1"):
        Budget(max_usd=-1)


LEFT_OPEN = """
import sys
from rmkit.generate import Engine, Request
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.types import Message
engine = Engine(EndpointGenerator(base_url=sys.argv[1], model="m"))
print(engine.samples([Request(prompt=(Message("user", "x"),))])[0].text)
"""


def test_an_engine_left_open_ends_quietly_with_the_process(serve: Any) -> None:
    endpoint, _ = serve(echo)
    command = [sys.executable, "-c", LEFT_OPEN, endpoint.base_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("re: x\n", "")


def test_an_abandoned_stream_stops_asking(serve: Any) -> None:
    endpoint, engine = serve(lambda asked: Reply(text="x", delay_s=0.01))
    made = engine(limits=Limits(concurrency=2))
    stream = made.each(made.sample, (ask(str(i)) for i in range(10_000)))
    next(stream)
    stream.close()
    time.sleep(0.1)
    asked = endpoint.n_requests
    time.sleep(0.2)
    assert endpoint.n_requests == asked < 300
    assert made.samples([ask("again")])[0].text == "x"  # the engine goes on


# ---- kill -9 ----

ASKER = """
import sys
from rmkit.generate import Engine, Limits, Request
from rmkit.generate.endpoint import EndpointGenerator
from rmkit.ledger import open_ledger
from rmkit.types import Message
with open_ledger(sys.argv[2]) as ledger:
    engine = Engine(EndpointGenerator(base_url=sys.argv[1], model="m"), ledger=ledger, limits=Limits(concurrency=8))
    requests = (Request(prompt=(Message("user", str(i)),)) for i in range(400))
    for sample in engine.each(engine.sample, requests):
        print(sample.text, flush=True)
    engine.close()
"""


def test_a_killed_run_pays_nothing_twice_that_it_was_answered(serve: Any, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def script(body: dict[str, Any]) -> Reply:
        asked[body["messages"][-1]["content"]] += 1
        return Reply(text=body["messages"][-1]["content"], delay_s=0.02)

    endpoint, _ = serve(script)
    ledger_path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", ASKER, endpoint.base_url, str(ledger_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    shown = [process.stdout.readline().strip() for _ in range(100)]
    os.kill(process.pid, signal.SIGKILL)
    shown += process.stdout.read().split()
    process.wait()
    with sqlite3.connect(ledger_path) as connection:
        rows = connection.execute("SELECT value FROM record WHERE kind = ?", (KIND,)).fetchall()
    paid = {json.loads(value)["text"] for (value,) in rows}
    assert set(shown) <= paid  # what was handed on is on disk
    before = asked.copy()
    whole = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert whole == [str(i) for i in range(400)]
    again = {text for text in before if asked[text] > before[text]}
    assert not again & paid
    assert sum(asked.values()) <= 400 + 2 * 8  # at most what was in flight or on its way to the disk
