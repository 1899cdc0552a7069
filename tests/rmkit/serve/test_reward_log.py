"""Every reward in the ledger: hashes, not texts; a sample that can be scaled up; a ledger that fails."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("fastapi")

import httpx

from rmkit.errors import StoreError
from rmkit.ids import assistant_message, content_hash, user_message
from rmkit.ledger import open_ledger
from rmkit.serve.http.app import create_app
from rmkit.serve.queue.batcher import Answer, Call
from rmkit.serve.rewards import reward_log
from rmkit.serve.rewards.reward_log import RewardLog, Served
from rmkit.serve.settings import ServeSettings
from rmkit.types import Candidates, Completion, Event, Message, Score
from tests.postgres import raw_connection
from tests.rmkit.serve.serving import Steered, client_of
from tests.rmkit.serve.serving import item as one


def serve(bodies: Sequence[Any], *, path: str = "/rmkit/v1/score", **options: Any) -> list[dict[str, Any]]:
    """Payloads of the reward events after a service answered the requests and went down."""
    with open_ledger() as ledger:
        app = create_app({"m": Steered()}, ServeSettings(**options), ledger=ledger)

        async def within() -> None:
            async with client_of(app) as client:
                for number, body in enumerate(bodies):
                    answer = await client.post(path, json=body, headers={"X-Request-Id": f"r{number}"})
                    assert answer.status_code == 200

        asyncio.run(within())
        return [dict(recorded.event.payload) for recorded in ledger.events(kinds=["reward"])]


def body(*completions: str, source: str | None = None) -> dict[str, Any]:
    return {"items": [{"prompt": "p", "completions": list(completions), "source": source}]}


def test_a_request_is_one_event_with_the_warehouse_s_hashes(home: Path) -> None:
    [event] = serve([body("abc", "nan", source="hh")])
    times = event.pop("queued_ms"), event.pop("total_ms")
    assert 0 <= times[0] <= times[1]
    assert event == {
        "request_id": "r0",
        "route": "/rmkit/v1/score",
        "client": "127.0.0.1",
        "model": "m",
        "fingerprint": "0",
        "sample": 1.0,
        "items": [
            {
                "prompt": content_hash(user_message("p")),
                "source": "hh",
                "completions": [
                    {"response": content_hash(assistant_message("abc")), "chars": 3, "value": 3.0},
                    {
                        "response": content_hash(assistant_message("nan")),
                        "chars": 3,
                        "value": None,
                        "unscored": "nothing there",
                    },
                ],
            }
        ],
    }


def test_texts_are_logged_only_when_asked_for(home: Path) -> None:
    [event] = serve([body("abc")], log_text=True)
    [item] = event["items"]
    assert (item["prompt_text"], item["completions"][0]["text"]) == (user_message("p"), assistant_message("abc"))


def test_comparisons_are_logged_with_their_probability(home: Path) -> None:
    [event] = serve([body("abc", "abc")], path="/rmkit/v1/compare")
    [item] = event["items"]
    assert item["p_first"] == 0.5
    assert [set(one) for one in item["completions"]] == [{"response", "chars"}] * 2


def test_a_sample_is_the_same_share_everywhere(home: Path) -> None:
    events = serve([body("a")] * 200, log_sample=0.25)
    assert 25 <= len(events) <= 80  # 50 expected, standard deviation 6
    assert {event["sample"] for event in events} == {0.25}
    assert {event["request_id"] for event in events} == {
        f"r{n}" for n in range(200) if reward_log.sampled(f"r{n}", 0.25)
    }
    assert serve([body("a")] * 5, log_sample=0.0) == events  # nothing new


def test_what_a_reason_quotes_is_cut_out() -> None:
    told = reward_log._reason("the template refuses 'a secret' and \"another\" in [1, 'x'] or {'k': 'v'}")
    assert told == {"unscored": "the template refuses ... and ... in ... or ..."}


class Failing:
    """A ledger that fails some times (or until told otherwise), then works."""

    def __init__(self, failures: float = math.inf, *, where: str = "here") -> None:
        self.where = where
        self.failures = failures
        self.events: list[Event] = []
        self.tries = 0

    def append_many(self, events: Sequence[Event]) -> list[int]:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise StoreError("the server is away")
        self.events += events
        return list(range(len(events)))

    @property
    def ids(self) -> list[str]:
        return [event.payload["request_id"] for event in self.events]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_log, "RETRY_S", (0.02, 0.05))
    monkeypatch.setattr(reward_log, "FLUSH_S", 0.01)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def spilled(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


@pytest.mark.usefixtures("hasty")
def test_a_ledger_that_is_away_for_long_costs_no_reward(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Failing()
    log = RewardLog(ledger, folder=tmp_path)
    for number in range(2000):
        log.add(_served(f"r{number}"))
        if number % 100 == 0:
            time.sleep(0.02)
    until(lambda: ledger.tries > 5 and log.waiting == 2000)
    [file] = spilled(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    ledger.failures = 0
    until(lambda: not log.waiting)
    log.add(_served("last"))
    log.close()
    assert ledger.ids == [*(f"r{number}" for number in range(2000)), "last"]
    assert (log.lost, spilled(tmp_path)) == (0, [])
    assert "rewards wait in" in caplog.text
    assert "the ledger is back" in caplog.text.replace("the reward log's ledger", "the ledger")


@pytest.mark.usefixtures("hasty")
def test_what_waits_when_a_service_ends_is_written_by_the_next(tmp_path: Path) -> None:
    """Three events on disk, the third torn by a kill; another ledger's file is none of our business."""
    log = RewardLog(Failing(), folder=tmp_path)
    for name in ("a", "b", "c"):
        log.add(_served(name))
    log.close()
    assert log.lost == 0
    RewardLog(Failing(where="elsewhere"), folder=tmp_path).close()
    [file] = spilled(tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    ledger = Failing(0)
    log = RewardLog(ledger, folder=tmp_path)
    log.add(_served("d"))
    until(lambda: len(ledger.ids) == 3)
    log.close()
    assert (ledger.ids, log.lost, spilled(tmp_path)) == (["a", "b", "d"], 1, [])


@pytest.mark.usefixtures("hasty")
def test_a_file_is_taken_from_a_dead_process_only(tmp_path: Path) -> None:
    owner, other = RewardLog(Failing(), folder=tmp_path), Failing(0)
    owner.add(_served("a"))
    until(lambda: bool(spilled(tmp_path)))
    RewardLog(other, folder=tmp_path).close()
    assert other.ids == []
    owner.close()
    RewardLog(other, folder=tmp_path).close()
    assert (other.ids, spilled(tmp_path)) == (["a"], [])


@pytest.mark.usefixtures("hasty")
def test_an_append_without_an_answer_is_a_ledger_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hanging append comes through in the end, and the same events a second time: they are stored once."""
    monkeypatch.setattr(reward_log, "PATIENCE_S", 0.1)
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        resumed, append_many = threading.Event(), ledger.append_many

        def hanging(events: Sequence[Event]) -> list[int]:
            assert resumed.wait(20)
            return append_many(events)

        monkeypatch.setattr(ledger, "append_many", hanging)
        log = RewardLog(ledger, folder=tmp_path / "spill")
        for number in range(100):
            log.add(_served(f"r{number}"))
            time.sleep(0.005)
        until(lambda: log.waiting == 100 and bool(spilled(tmp_path / "spill")))
        resumed.set()
        until(lambda: not log.waiting)
        log.close()
        logged = [recorded.event.payload["request_id"] for recorded in ledger.events(kinds=["reward"])]
    assert sorted(logged) == sorted(f"r{number}" for number in range(100))
    assert log.lost == 0


@pytest.mark.usefixtures("hasty")
def test_what_neither_ledger_nor_disk_takes_is_held_then_dropped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()  # no folder can be made in it
    ledger = Failing()
    log = RewardLog(ledger, folder=tmp_path / "file" / "spill", room=50)
    log.add(_served("first"))
    until(lambda: ledger.tries > 2)
    for number in range(60):
        log.add(_served(f"r{number}"))
    ledger.failures = 0
    until(lambda: len(ledger.ids) == 51)
    log.close()
    assert ledger.ids == ["first", *(f"r{number}" for number in range(50))]
    assert log.lost == 10
    assert "10 rewards were not logged" in caplog.text
    lost = RewardLog(Failing(), folder=tmp_path / "file" / "spill")
    lost.add(_served("x"))
    lost.close()
    assert lost.lost == 1


@pytest.mark.usefixtures("hasty")
def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write stops after ten bytes; what comes later is read back whole."""
    writes, pwrite = [10, -1], os.pwrite

    def short(file: int, data: bytes, at: int) -> int:
        most = writes.pop(0) if writes else len(data)
        if most < 0:
            raise OSError(28, "No space left on device")
        return pwrite(file, data[:most], at)

    monkeypatch.setattr(os, "pwrite", short)
    ledger = Failing(5)
    log = RewardLog(ledger, folder=tmp_path)
    for name in ("a", "b"):
        log.add(_served(name))
        time.sleep(0.1)
    until(lambda: len(ledger.ids) == 2)
    log.close()
    assert (ledger.ids, log.lost) == (["a", "b"], 0)


def test_a_request_that_cannot_be_logged_spoils_no_other(home: Path) -> None:
    with open_ledger() as ledger:
        log = RewardLog(ledger)
        deep: Any = {}
        for _ in range(100_000):
            deep = {"a": deep}
        odd = [
            _served("surrogate", call=Call(sources=("\ud800",))),
            _served("nan", item=_calling({"x": math.nan})),
            _served("deep", item=_calling(deep)),
        ]
        for served in (_served("before"), *odd, _served("after")):
            log.add(served)
        log.close()
        logged = [recorded.event.payload["request_id"] for recorded in ledger.events(kinds=["reward"])]
    assert logged == ["before", "after"]
    assert log.lost == 3


def test_the_metrics_tell_what_waits_and_what_is_lost(home: Path) -> None:
    app = create_app({"m": Steered()}, ledger=cast(Any, Failing()))

    async def within() -> list[str]:
        async with client_of(app) as client:
            for _ in range(3):
                assert (await client.post("/rmkit/v1/score", json=body("a"))).status_code == 200
            return (await client.get("/metrics")).text.splitlines()

    lines = asyncio.run(within())
    assert "rmkit_reward_log_waiting 3.0" in lines
    assert "rmkit_reward_log_lost 0.0" in lines


def test_a_full_buffer_never_holds_up_an_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Failing(0)
    blocked = threading.Event()
    monkeypatch.setattr(ledger, "append_many", lambda events: blocked.wait(20))
    log = RewardLog(ledger, room=1)
    served = _served()
    for _ in range(3000):  # far more than a group and the room hold while the ledger hangs
        log.add(served)
    assert log.lost > 0
    blocked.set()
    log.close()


@contextlib.contextmanager
def shut(url: str, database: str) -> Iterator[None]:
    """The database lets nobody in, and those who were in are thrown out."""
    admin_url = url.replace(f"/{database}?", "/postgres?")
    with raw_connection(admin_url) as admin:

        def allow(yes: str) -> None:
            admin.execute(f"UPDATE pg_database SET datallowconn = {yes} WHERE datname = '{database}'").close()

        allow("false")
        admin.execute(
            f"SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = '{database}'"
        ).close()
        try:
            yield
        finally:
            allow("true")


@pytest.mark.usefixtures("hasty")
def test_postgresql_away_under_load_loses_no_reward(
    home: Path, fresh_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away twice for a second; in the old form, 2.5 s and three tries were the end of a group."""
    url = fresh_database("away")
    n = 0
    with open_ledger(url) as ledger:
        app = create_app({"m": Steered()}, ledger=ledger)
        rewards = app.state.rewards

        async def some(client: httpx.AsyncClient, seconds: float) -> None:
            nonlocal n
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                answer = await client.post("/rmkit/v1/score", json=body("a"), headers={"X-Request-Id": f"r{n}"})
                assert answer.status_code == 200
                n += 1
                await asyncio.sleep(0.005)

        async def within() -> None:
            async with client_of(app) as client:
                await some(client, 0.3)
                for _ in range(2):
                    with shut(url, "away"):
                        await some(client, 1)
                        assert rewards.waiting
                    await some(client, 0.3)

        asyncio.run(within())
        logged = [recorded.event.payload["request_id"] for recorded in ledger.events(kinds=["reward"])]
    assert rewards.lost == 0
    assert sorted(logged) == sorted(f"r{number}" for number in range(n))


def _calling(arguments: Any) -> Candidates:
    call = {"name": "f", "arguments": arguments}
    return Candidates((Message("user", "p"),), (Completion((Message("assistant", "a", tool_calls=(call,)),)),))


def _served(request_id: str = "r", *, item: Candidates | None = None, call: Call | None = None) -> Served:
    call = replace(call or Call(), request_id=request_id)
    return Served("m", [item or one("p", "a")], call, Answer(Steered().info, [[Score(1.0)]], 0.0, 0.0))
