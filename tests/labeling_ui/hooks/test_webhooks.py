"""Webhooks: what is sent, how it is signed, where to, and that nothing is lost or doubled by failures and kills."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import random
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labeling_ui.benchmarks.process import Server
from labeling_ui.client import StudioClient
from labeling_ui.desk.answers import Answer
from labeling_ui.desk.desk import Desk
from labeling_ui.hooks import deliver
from labeling_ui.hooks.address import check_url
from labeling_ui.hooks.deliver import Sender
from labeling_ui.hooks.webhooks import (
    add_webhook,
    remove_webhook,
    resume_webhook,
    secret_of,
    state_of,
    webhooks,
)
from labeling_ui.projects.people import ForbiddenError, add_person
from labeling_ui.projects.project import Project
from labeling_ui.projects.reviews import write_review
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN, LEA
from tests.labeling_ui.hooks.receiver import Receiver

Make = Callable[..., Project]
HERE = ("127.0.0.1",)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    result = Receiver()
    yield result
    result.close()


@pytest.fixture
def desk(ledger: Ledger, make_project: Make) -> Desk:
    return make_project(overlap=1).desk(ledger)


def _verified(secret: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """As docs/labeling.md says it to receivers."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert hmac.compare_digest(headers["webhook-signature"], "v1," + base64.b64encode(mac).decode())
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return dict(json.loads(body))


def _answer(desk: Desk, n: int = 1) -> str:
    for _ in range(n):
        (hold,) = desk.open(ANNA)
        event = desk.submit(ANNA, hold.id, Answer(better=0))
    return str(event)


def test_what_happens_is_told_once_signed_and_in_order(ledger: Ledger, desk: Desk, receiver: Receiver) -> None:
    _answer(desk)  # before there was a webhook: no news
    hook, secret = add_webhook(ledger, LEA, "sums", url=receiver.url, allowed=HERE)
    sender = Sender(ledger, lambda name: desk.progress(), allowed=HERE)
    first = _answer(desk)
    write_review(ledger, "sums", LEA, event=first, rater="anna", decision="accepted")
    second = _answer(desk)
    desk.return_answer(LEA, second, comment="look again")
    _answer(desk, 10)
    for _ in range(3):
        sender.turn()
    told = [_verified(secret, *one) for one in receiver.taken]
    kinds = ["answer.submitted", "answer.accepted", "answer.submitted", "answer.returned"]
    assert [one["type"] for one in told] == [*kinds, *["answer.submitted"] * 10, "project.completed"]
    assert len({one["id"] for one in told}) == len(told)
    assert (told[0]["data"]["event"], told[3]["data"]["comment"]) == (first, "look again")
    assert told[-1]["data"] == {"items": 12, "answered": 12, "complete": 12, "set_aside": 0}
    assert (state_of(ledger, hook)[0].delivered, state_of(ledger, hook)[0].error) == (len(told), "")
    (last,) = desk.history(ANNA, limit=1)
    desk.return_answer(LEA, str(last.event), comment="once more")
    sender.turn()
    _answer(desk)
    sender.turn()
    again = [json.loads(body)["type"] for _, body in receiver.taken[len(told) :]]
    assert again == ["answer.returned", "answer.submitted", "project.completed"]
    assert len({headers["webhook-id"] for headers, _ in receiver.taken}) == len(receiver.taken)


def test_a_receiver_that_fails_gets_it_later_and_the_lead_sees_why(
    ledger: Ledger, desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, _ = add_webhook(ledger, LEA, "sums", url=receiver.url, events=["answer.submitted"], allowed=HERE)
    sender = Sender(ledger, lambda name: desk.progress(), allowed=HERE)
    receiver.refuse = 1
    _answer(desk, 2)
    sender.turn()
    state = state_of(ledger, hook)[0]
    assert (state.tries, state.error, receiver.taken) == (1, "answered with status 500", [])
    assert 1 < state.next_try - time.time() <= 2
    sender.turn()  # too early
    assert receiver.taken == []
    resume_webhook(ledger, LEA, "sums", hook.id)
    Sender(ledger, lambda name: desk.progress(), allowed=HERE).turn()  # of another process
    assert (len(receiver.taken), state_of(ledger, hook)[0].error) == (2, "")
    receiver.refuse, receiver.status = 1, 410
    _answer(desk)
    sender.turn()
    assert state_of(ledger, hook)[0].is_stopped
    monkeypatch.setattr(deliver, "MAX_TRIES", 2)
    receiver.refuse, receiver.status = 9, 503
    resume_webhook(ledger, LEA, "sums", hook.id)
    sender.turn()
    assert not state_of(ledger, hook)[0].is_stopped
    remove_webhook(ledger, LEA, "sums", hook.id)
    assert list(webhooks(ledger)) == []


def test_the_secret_is_in_no_ledger_and_no_log(
    ledger: Ledger, desk: Desk, receiver: Receiver, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook, secret = add_webhook(ledger, LEA, "sums", url=receiver.url, allowed=HERE)
    _answer(desk)
    receiver.refuse = 1
    Sender(ledger, lambda name: desk.progress(), allowed=HERE).turn()
    assert secret == "whsec_" + base64.b64encode(secret_of(hook.id)).decode()
    stored = b"".join(path.read_bytes() for path in home.glob("ledger.sqlite*"))
    for form in (secret.removeprefix("whsec_"), secret_of(hook.id).hex()):
        assert form not in caplog.text
        assert form.encode() not in stored
    assert stat.S_IMODE((home / "webhook.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "begins with https"),
        ("https://127.0.0.1/", "private network"),
        ("https://[::1]/", "private network"),
        ("https://[::ffff:10.0.0.1]/", "private network"),
        ("https://[64:ff9b::7f00:1]/", "private network"),
        ("https://169.254.169.254/latest/meta-data", "private network"),
        ("https://2130706433/", "private network"),
        ("https://localhost/", "private network"),
        ("https://user:secret@example.org/", "without a user"),
        ("ftp://example.org/", "https://HOST/PATH"),
        ("https://", "https://HOST/PATH"),
        ("https://example.org:99999/", "https://HOST/PATH"),
    ],
)
def test_nothing_goes_to_this_machine_or_its_network(url: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        check_url(url, allowed=())


def test_only_leads_add_webhooks_and_only_for_events_that_there_are(ledger: Ledger, desk: Desk) -> None:
    with pytest.raises(ForbiddenError, match="may not add webhooks"):
        add_webhook(ledger, BEN, "sums", url="https://127.0.0.1/", allowed=HERE)
    with pytest.raises(UsageError, match="unknown event 'answer'"):
        add_webhook(ledger, LEA, "sums", url="https://127.0.0.1/", events=["answer"], allowed=HERE)
    with pytest.raises(UsageError, match="at least one event"):
        add_webhook(ledger, LEA, "sums", url="https://127.0.0.1/", events=[], allowed=HERE)


@pytest.mark.slow
def test_kills_lose_and_double_nothing(home: Path, make_project: Make, ledger: Ledger, receiver: Receiver) -> None:
    """A served studio, killed four times while answers come in and the receiver fails one time in five."""
    make_project(overlap=4)
    tokens = {name: add_person(ledger, name, role="annotator") for name in ("a", "b", "c", "d")}
    lead = add_person(ledger, "lea", role="lead")
    server = Server(home, options=["--allow-webhook", "127.0.0.1"])
    server.start()
    draw, events = random.Random(0), set()
    try:
        with StudioClient(server.url, token=lead) as client:
            secret = client.add_webhook("sums", receiver.url)["secret"]
            assert "secret" not in client.webhooks("sums")[0]
        for turn in range(48):
            with StudioClient(server.url, token=tokens["abcd"[turn % 4]]) as client:
                (item,) = client.next("sums")
                events.add(client.answer("sums", item["id"], {"better": 0}))
            receiver.refuse = int(draw.random() < 0.2)
            if turn in (10, 20, 30, 40):
                time.sleep(draw.random())
                server.restart()
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and b"project.completed" not in receiver.taken[-1][1]:
            time.sleep(0.5)
    finally:
        server.kill()
    told = {headers["webhook-id"]: _verified(secret, headers, body) for headers, body in receiver.taken}
    submitted = [one["data"]["event"] for one in told.values() if one["type"] == "answer.submitted"]
    print(f"{len(events)} answers, 4 kills, {len(receiver.taken)} deliveries, {len(told)} different")
    assert sorted(submitted) == sorted(events)
    assert [one["type"] for one in told.values()].count("project.completed") == 1
