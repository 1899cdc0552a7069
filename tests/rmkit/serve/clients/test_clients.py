"""The service as a reward model: the same scores as at home, through every door, in every kind of trouble."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from rmkit.errors import UsageError
from rmkit.models import load_model
from rmkit.serve.clients import Patience, RewardClient, RewardServiceError, UnavailableError
from rmkit.serve.clients.address import address
from rmkit.serve.clients.circuit_breaker import CircuitBreaker
from rmkit.serve.clients.score_cache import Hit, ScoreCache
from rmkit.types import Candidates, Completion, Message, RewardModel, Score
from tests.rmkit.serve.compat_service import TALK, TOKEN, Running, Witness, free_port, reward_service, running, worth

HASTY = Patience(timeout_s=10, attempts=4, longest_wait_s=0.02, breaker_cooldown_s=0.01)

CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness()


@pytest.fixture(scope="module")
def service(witness: Witness) -> Iterator[Running]:
    with reward_service(witness, Witness("other")) as found:
        yield found


def item(prompt: str, *replies: str) -> Candidates:
    return Candidates((Message("user", prompt),), tuple(Completion((Message("assistant", one),)) for one in replies))


BATCH = [
    item("a", "1", "2", "3"),
    item("b", "x"),
    Candidates(
        (
            Message("system", "Be brief."),
            Message("user", "é\u2028\x00"),
            Message("assistant", "?"),
            Message("user", "c"),
        ),
        (
            Completion(
                (
                    Message(
                        "assistant",
                        "",
                        tool_calls=(CALL,),
                    ),
                    Message("tool", "4"),
                )
            ),
            Completion((Message("assistant", "two steps"),), source="policy-7", step_ends=(3, 9)),
        ),
    ),
    replace(item("b", "x"), tools=({"name": "f"},), reference="72", rubric=({"criterion": "is kind"},)),
    Candidates((Message("user", "b"),), (Completion((Message("assistant", "x", reasoning="hm"),)),)),
]


@pytest.mark.parametrize("form", ["bare", "path", "basic"])
def test_scores_and_comparisons_are_the_models_own(service: Running, witness: Witness, form: str) -> None:
    client = RewardClient(service.url(form), token=TOKEN if form == "bare" else None)
    assert isinstance(client, RewardModel)
    assert client.info == witness.info
    scores = client.score(BATCH)
    assert {(item.reference, len(item.tools), len(item.rubric)) for item in witness.seen} == {
        (None, 0, 0),
        ("72", 1, 1),
    }
    assert "hm" in {turn.reasoning for item in witness.seen for reply in item.completions for turn in reply.messages}
    assert scores == witness.score(BATCH)
    pairs = [item("p", "1", "2"), item("q", "2", "1")]
    assert client.compare(pairs) == witness.compare(pairs)
    assert client.score([]) == []


def test_the_model_is_chosen_by_name_or_fragment(service: Running) -> None:
    assert RewardClient(service.url("path") + "#other").info.name == "other"
    assert RewardClient(service.url("path"), model="other").score([item("p", "r")])[0][0].value == worth(
        [Message("user", "p"), Message("assistant", "r")]
    )
    with pytest.raises(RewardServiceError, match="serves no model 'third'; it serves witness, other"):
        _ = RewardClient(service.url("path"), model="third").info
    with pytest.raises(RewardServiceError, match="404"):
        RewardClient(service.url("path"), model="third").score([item("p", "r")])


def test_one_bad_item_is_unscored_alone(service: Running, witness: Witness) -> None:
    robot = Candidates((Message("robot", "beep"),), (Completion((Message("assistant", "x"),)),))
    broken = item("half a character \ud800", "x")
    batch = [item("a", "1"), robot, item("b", "2", Witness.unscorable), broken, item("c", "3")]
    scores = RewardClient(service.url("path")).score(batch)
    assert [[score.unscored is None for score in row] for row in scores] == [
        [True],
        [False],
        [True, False],
        [False],
        [True],
    ]
    assert scores[2][1].unscored == "asked not to"
    assert [scores[0], scores[4]] == [witness.score([one])[0] for one in (batch[0], batch[4])]


def test_many_completions_travel_in_several_requests(service: Running, witness: Witness) -> None:
    batch = [item(f"p{n}", *(f"{n} {m}" for m in range(70))) for n in range(9)] + [item("big", *map(str, range(600)))]
    assert RewardClient(service.url("path")).score(batch) == witness.score(batch)


@pytest.mark.parametrize("token", [None, "rmk_wrong-token-that-is-long-enough"])
def test_a_refused_token_is_told_at_once(service: Running, token: str | None) -> None:
    began = time.monotonic()
    with pytest.raises(RewardServiceError, match="401"):
        RewardClient(service.url(), token=token, patience=Patience(longest_wait_s=30)).score([item("p", "r")])
    assert time.monotonic() - began < 10  # no waiting between attempts


def test_no_log_error_or_repr_holds_the_token(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for form in ("path", "basic"):
        client = RewardClient(service.url(form))
        client.score(BATCH)
        with pytest.raises(RewardServiceError) as refused:
            RewardClient(service.url(form) + "#third", patience=HASTY).score([item("p", "r")])
        assert TOKEN not in repr(client) + repr(client.service) + repr(client.service.at) + str(refused.value)
    assert caplog.records
    assert TOKEN not in caplog.text


class Moody:
    """An ASGI service that answers with the given statuses first and properly ever after."""

    def __init__(self, *statuses: int, retry_after: str | None = None) -> None:
        self.statuses = list(statuses)
        self.retry_after = retry_after
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[bytes] = []
        self.fingerprint = "f" * 32
        self.pointwise = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        asked = json.loads(body or b"{}")
        self.bodies.append(asked)
        self.keys.append(dict(scope["headers"]).get(b"idempotency-key", b""))
        status = self.statuses.pop(0) if self.statuses else 200
        headers = [(b"content-type", b"application/json")]
        if self.retry_after and status == 429:
            headers.append((b"retry-after", self.retry_after.encode()))
        told: dict[str, Any] = {"error": "in a mood"}
        if status == 200:
            model = {"name": "m", "kind": "explicit", "scale": "logit"}
            model |= {"pointwise": self.pointwise, "fingerprint": self.fingerprint}
            rows = [[{"value": float(len(self.bodies))} for _ in one["completions"]] for one in asked.get("items", [])]
            told = {"model": model, "scores": rows, "default": "m", "models": [model]}
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def test_what_may_pass_is_tried_again_with_the_same_key() -> None:
    moody = Moody(500, 503, 429)
    with running(moody) as found:
        scores = RewardClient(found.url(), patience=HASTY).score([item("p", "r")])
    assert scores == [[Score(4.0)]]
    assert len(set(moody.keys)) == 1
    assert moody.keys[0]


def test_patience_ends() -> None:
    moody = Moody(*[503] * 9)
    with running(moody) as found, pytest.raises(UnavailableError, match="503: in a mood"):
        RewardClient(found.url(), patience=HASTY).score([item("p", "r")])
    assert len(moody.bodies) == HASTY.attempts


def test_retry_after_is_obeyed() -> None:
    moody = Moody(429, retry_after="1")
    patient = Patience(attempts=2, longest_wait_s=5)
    with running(moody) as found:
        client = RewardClient(found.url(), patience=patient)
        began = time.monotonic()
        client.score([item("p", "r")])
        assert time.monotonic() - began >= 1


def test_a_service_that_is_away_and_one_that_never_answers() -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        RewardClient(f"http://127.0.0.1:{free_port()}", patience=HASTY).score([item("p", "r")])

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await receive()
            await receive()

    with running(silent) as found, pytest.raises(UnavailableError, match="ReadTimeout"):
        RewardClient(found.url(), patience=Patience(timeout_s=0.2, attempts=1)).score([item("p", "r")])


def test_answers_that_do_not_fit_are_errors() -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = json.dumps({"scores": [], "model": {}}).encode() if scope["method"] == "POST" else b"<html>"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with running(short) as found:
        client = RewardClient(found.url(), patience=HASTY)
        with pytest.raises(RewardServiceError, match="0 answers to 1 items"):
            client.score([item("p", "r")])
        with pytest.raises(RewardServiceError, match="no JSON"):
            _ = client.info


def test_a_service_that_comes_back_is_used_again() -> None:
    port = free_port()
    client = RewardClient(f"http://127.0.0.1:{port}", patience=HASTY)
    with pytest.raises(UnavailableError):
        client.score([item("p", "r")])
    with running(Moody(), port=port):
        time.sleep(HASTY.breaker_cooldown_s)
        assert client.score([item("p", "r")]) == [[Score(1.0)]]


def test_the_circuit_breaker_lets_one_caller_through_after_its_cooldown() -> None:
    now = [0.0]
    breaker = CircuitBreaker(failures=2, cooldown_s=5, clock=lambda: now[0])
    breaker.failed()
    assert breaker.wait_s() == 0
    breaker.failed()
    assert breaker.wait_s() == 5
    now[0] = 5.0
    assert [breaker.wait_s(), breaker.wait_s()] == [0, 5]  # the first tries, the second waits for its outcome
    breaker.failed()
    assert breaker.wait_s() == 5
    now[0] = 10.0
    assert breaker.wait_s() == 0
    breaker.succeeded()
    assert [breaker.wait_s(), breaker.wait_s()] == [0, 0]


def test_an_open_circuit_sends_nothing() -> None:
    moody = Moody(*[500] * 20)
    patience = Patience(attempts=6, longest_wait_s=0.02, breaker_failures=3, breaker_cooldown_s=60)
    with running(moody) as found, pytest.raises(UnavailableError, match="not tried again"):
        RewardClient(found.url(), patience=patience).score([item("p", "r")])
    assert len(moody.bodies) == 3


def test_a_busy_service_is_not_taken_for_one_that_is_down() -> None:
    moody = Moody(*[429] * 5)
    patience = Patience(attempts=6, longest_wait_s=0.02, breaker_failures=2, breaker_cooldown_s=60)
    with running(moody) as found:
        assert RewardClient(found.url(), patience=patience).score([item("p", "r")]) == [[Score(6.0)]]


def test_scores_are_kept_and_a_new_fingerprint_drops_them() -> None:
    moody = Moody()
    with running(moody) as found:
        client = RewardClient(found.url(), patience=HASTY)
        assert client.score([item("p", "a", "b")]) == [[Score(1.0), Score(1.0)]]
        assert client.score([item("p", "b", "c", "a")]) == [[Score(1.0), Score(2.0), Score(1.0)]]
        assert len(moody.bodies[1]["items"][0]["completions"]) == 1  # only the new one was asked
        moody.fingerprint = "0" * 32
        assert client.score([item("p", "d")]) == [[Score(3.0)]]
        assert client.score([item("p", "a")]) == [[Score(4.0)]]
        moody.pointwise, moody.fingerprint = False, "1" * 32
        client.score([item("q", "a")])
        assert client.score([item("q", "a")]) == [[Score(6.0)]]


def test_a_batch_has_the_scores_of_one_model_though_it_is_swapped() -> None:
    """Kept scores of the old model beside fresh ones of the new would be two scales in one group."""
    moody = Moody()
    with running(moody) as found:
        client = RewardClient(found.url(), patience=HASTY)
        assert client.score([item("p", "a", "b")]) == [[Score(1.0), Score(1.0)]]
        moody.fingerprint = "0" * 32
        assert client.score([item("p", "a", "c")]) == [[Score(3.0), Score(3.0)]]  # 2.0 for "c" alone, then all anew
        assert client.score([item("p", "a", "c")]) == [[Score(3.0), Score(3.0)]]
        assert len(moody.bodies) == 3


def test_requests_of_one_batch_that_meet_two_models_are_asked_again() -> None:
    class Swapped(Moody):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self.fingerprint = ("a" if len(self.bodies) < self.swaps else "b") * 32
            await super().__call__(scope, receive, send)

    many = [item(f"p{number}", *(str(n) for n in range(200))) for number in range(2)]  # in two requests
    for swaps, cache_size in ((1, 4096), (1, 0)):
        moody = Swapped()
        moody.swaps = swaps
        with running(moody) as found:
            scores = RewardClient(found.url(), patience=HASTY, cache_size=cache_size).score(many)
        assert [{score.value for score in row} for row in scores] == [{3}, {4}]

    class Restless(Moody):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self.fingerprint = f"{len(self.bodies):032}"
            await super().__call__(scope, receive, send)

    with running(Restless()) as found, pytest.raises(RewardServiceError, match="swapped models in each of 3 tries"):
        RewardClient(found.url(), patience=HASTY).score(many)


def test_a_kept_score_ages_though_it_is_asked_for_again_and_again() -> None:
    moody = Moody()
    with running(moody) as found:
        client = RewardClient(found.url(), patience=HASTY, cache_age_s=0.5)
        values, until = set(), time.monotonic() + 3
        while time.monotonic() < until and len(values) < 2:
            values.add(client.score([item("p", "a")])[0][0].value)
            time.sleep(0.05)
    assert values == {1, 2}


def test_the_cache_forgets_the_oldest_and_the_aged() -> None:
    now = [0.0]
    cache = ScoreCache(2, max_age_s=10, clock=lambda: now[0])
    for key in ("a", "b"):
        cache.put(key, Score(1.0), fingerprint="f")
    assert cache.get("a") == Hit(0.0, Score(1.0), "f")
    cache.put("c", Score(3.0), fingerprint="f")
    assert [cache.get(key) is None for key in "abc"] == [False, True, False]
    cache.put("d", Score.failed("why"), fingerprint="f")
    assert cache.get("d") is None
    now[0] = 11.0
    assert cache.get("a") is None


def _scored_by(client: RewardClient, results: Any) -> None:
    results.put(client.score([item("a", "1")])[0][0].value)


def test_clients_survive_pickling_and_forking(service: Running, witness: Witness) -> None:
    client = RewardClient(service.url("basic"))
    expected = client.score([item("a", "1")])
    assert pickle.loads(pickle.dumps(client)).score([item("a", "1")]) == expected
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_scored_by, args=(client, results))
    child.start()
    assert results.get(timeout=30) == expected[0][0].value
    child.join(timeout=30)
    assert client.score([item("a", "2")]) == witness.score([item("a", "2")])


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TOKEN", "MODEL"):
        monkeypatch.delenv(f"RMKIT_REWARD_{name}", raising=False)
    found = address("https://host/base/t/abc/#help%20ful")
    assert (found.url, found.token, found.model) == ("https://host/base", "abc", "help ful")
    found = address("http://u:p%40ss@host:1/")
    assert (found.url, found.token) == ("http://host:1", "p@ss")
    with pytest.raises(UsageError, match="RMKIT_REWARD_URL"):
        address()
    with pytest.raises(UsageError, match="names a host"):
        address("host:8383")
    monkeypatch.setenv("RMKIT_REWARD_URL", "http://there:2")
    monkeypatch.setenv("RMKIT_REWARD_TOKEN", "t")
    assert address().token == "t"
    assert address(token="mine").token == "mine"


def test_a_trainers_machine_needs_httpx_and_tenacity_only() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {REFUSED}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from rmkit.serve.clients import RewardClient, openrlhf, reward_client, trl, verl, verifiers, nemo_rl
RewardClient("http://127.0.0.1:9")
""".replace("REFUSED", repr(set(REFUSED_ON_A_TRAINER))[1:-1])
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


REFUSED_ON_A_TRAINER = ["torch", "numpy", "fastapi", "starlette", "uvicorn", "pydantic", "duckdb", "polars", "pyarrow"]
REFUSED_ON_A_TRAINER += ["jinja2", "transformers", "sklearn", "scipy", "rich", "trl", "ray"]


def test_a_url_is_a_models_name(service: Running, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMKIT_REWARD_TOKEN", TOKEN)
    assert load_model(service.url()).score(BATCH) == witness.score(BATCH)
    assert load_model(service.url() + "#other").info.name == "other"
    for form in ("path", "basic"):
        with pytest.raises(UsageError, match="RMKIT_REWARD_TOKEN"):
            load_model(service.url(form))


def test_the_dialects_own_paths_are_open_to_the_client(service: Running) -> None:
    client = RewardClient(service.url("path"))
    assert client.service.ask("/openrlhf", {"query": []})["rewards"] == []
    assert httpx.get(service.url() + "/healthz").status_code == 200
    assert client.score([Candidates(TALK[:1], (Completion(TALK[1:]),))])[0][0].value == worth(TALK)
