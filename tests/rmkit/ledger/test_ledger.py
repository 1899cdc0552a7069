"""The ledger: every test runs on both back ends."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmkit.errors import BusyError, DataError, StoreError, UsageError
from rmkit.ledger import Ledger, open_ledger
from rmkit.ledger.rows import Row, plan
from rmkit.types import Event
from tests.postgres import BACK_ENDS, raw_connection


@pytest.fixture(params=BACK_ENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "home" / "ledger.sqlite")
    create: Callable[[], str] = request.getfixturevalue("fresh_database")
    return create()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with open_ledger(url) as opened:
        yield opened


HOLD = {
    "sqlite": ["BEGIN IMMEDIATE"],
    "postgres": ["BEGIN", "UPDATE rmkit.ledger SET last_seq = last_seq"],
}


def back_end(url: str) -> str:
    return "postgres" if "://" in url else "sqlite"


def event(number: int = 0, **fields: Any) -> Event:
    return Event(**({"kind": "judgment", "actor": "ada", "payload": {"number": number}} | fields))


def numbers(ledger: Ledger, *args: Any, **kwargs: Any) -> list[int]:
    return [recorded.event.payload["number"] for recorded in ledger.events(*args, **kwargs)]


def test_an_event_comes_back_as_it_was(ledger: Ledger) -> None:
    stored = event(
        kind="edit",
        actor="Zoë 😀 'quoted\"",
        payload={"z": [1, None, 2.5, True], "a": {"text": 'tab\t nul\0 quote" back\\slash line\nπ 😀'}, "": {}},
        time=datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-7))),
        supersedes=uuid.uuid4(),
    )
    assert ledger.append(stored) == 1
    [(seq, found)] = ledger.events()
    assert (seq, found) == (1, stored)
    assert found.time.utcoffset() == timedelta(0)


def test_seqs_count_from_one_without_gaps_in_order_of_commit(ledger: Ledger) -> None:
    assert ledger.last_seq() == 0
    assert ledger.append(event(0)) == 1
    assert ledger.append_many([event(1), event(2)]) == [2, 3]
    assert ledger.append_many([]) == []
    assert [recorded.seq for recorded in ledger.events()] == [1, 2, 3]
    assert ledger.last_seq() == 3


def test_reading_after_a_seq_of_some_kinds_with_a_limit(ledger: Ledger) -> None:
    kinds = ["judgment", "reward", "judgment", "edit", "reward", "judgment"]
    ledger.append_many([event(i, kind=kind) for i, kind in enumerate(kinds)])
    assert numbers(ledger, 2) == [2, 3, 4, 5]
    assert numbers(ledger, kinds=["judgment"]) == [0, 2, 5]
    assert numbers(ledger, 1, kinds={"judgment", "edit"}, limit=2) == [2, 3]
    assert numbers(ledger, kinds=[]) == []
    assert numbers(ledger, limit=0) == []
    assert numbers(ledger, 6) == []
    assert ledger.counts(1, 5) == {"edit": 1, "judgment": 1, "reward": 2}


def test_reading_goes_in_pages_and_misses_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmkit.ledger.rows.PAGE", 3)
    ledger.append_many([event(i) for i in range(9)])
    assert numbers(ledger) == list(range(9))
    assert numbers(ledger, limit=7) == list(range(7))
    reading = ledger.events(4)
    assert next(reading).seq == 5
    ledger.append(event(9))  # a page read later holds what was committed meanwhile
    assert [recorded.seq for recorded in reading] == [6, 7, 8, 9, 10]


def test_get_gives_the_known_ids_in_order_of_seq(ledger: Ledger) -> None:
    events = [event(i) for i in range(3)]
    ledger.append_many(events)
    found = ledger.get([events[2].id, uuid.uuid4(), events[0].id])
    assert [(r.seq, r.event) for r in found] == [(1, events[0]), (3, events[2])]
    assert ledger.get([]) == []


def test_appending_again_changes_nothing(ledger: Ledger) -> None:
    first = event(payload={"a": 1, "b": 2})
    assert ledger.append(first) == 1
    ledger.append(event(1))
    again = Event(
        id=first.id,
        kind=first.kind,
        actor=first.actor,
        payload={"b": 2, "a": 1},  # other key order, other zone: the same event
        time=first.time.astimezone(timezone(timedelta(hours=5))),
    )
    assert ledger.append(again) == 1
    assert ledger.append_many([first, event(2), first]) == [1, 3, 1]
    assert ledger.last_seq() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"payload": {"number": 1}},
        {"kind": "edit"},
        {"actor": "bob"},
        {"time": datetime(2020, 1, 1, tzinfo=UTC)},
        {"supersedes": uuid.UUID(int=7)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_content_under_the_same_id_is_refused_and_nothing_of_the_call_is_stored(
    ledger: Ledger, change: dict[str, Any]
) -> None:
    first = event(0)
    ledger.append(first)
    other = event(0, **({"id": first.id, "time": first.time} | change))
    with pytest.raises(DataError, match=rf"{first.id}.* \(seq 1\) with another {next(iter(change))}"):
        ledger.append_many([event(5), other, event(6)])
    assert numbers(ledger) == [0]
    assert ledger.append(event(7)) == 2


def test_a_refused_call_does_not_touch_the_calls_committed_with_it(ledger: Ledger) -> None:
    taken = event(0)
    ledger.append(taken)
    outcomes: dict[int, Any] = {}

    def call(i: int) -> None:
        try:
            outcomes[i] = ledger.append(event(i, id=taken.id) if i % 3 == 0 else event(i))
        except DataError:
            outcomes[i] = "refused"

    run_threads(call, range(1, 31))
    assert {i for i, outcome in outcomes.items() if outcome == "refused"} == set(range(3, 31, 3))
    assert sorted(seq for seq in outcomes.values() if seq != "refused") == list(range(2, 22))
    assert sorted(numbers(ledger)) == [0] + [i for i in range(1, 31) if i % 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": ""}, "kind must be"),
        ({"actor": ""}, "actor must be"),
        ({"actor": "a\0b"}, "NUL"),
        ({"actor": "\ud800"}, "canonical JSON"),
        ({"payload": {"x": float("nan")}}, "canonical JSON"),
        ({"payload": {"x": object()}}, "canonical JSON"),
        ({"payload": [1]}, "must be a mapping, got list"),
    ],
)
def test_what_cannot_be_stored_is_refused(ledger: Ledger, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ledger.append(event(**fields))
    assert ledger.last_seq() == 0


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="UTC"):
        event(time=datetime(2026, 1, 1))


def test_threads_share_commits_and_each_gets_its_own_seq(ledger: Ledger) -> None:
    seqs: dict[int, int] = {}
    run_threads(lambda i: seqs.update({i: ledger.append(event(i))}), range(40))
    assert sorted(seqs.values()) == list(range(1, 41))
    assert {r.event.payload["number"]: r.seq for r in ledger.events()} == seqs


def test_an_acknowledged_event_is_seen_by_everyone_at_once(url: str) -> None:
    with open_ledger(url) as writer, open_ledger(url) as reader:
        for i in range(5):
            assert writer.append(event(i)) == i + 1
            assert reader.last_seq() == i + 1


def test_it_stays_after_closing(url: str) -> None:
    with open_ledger(url) as ledger:
        ledger.append_many([event(i) for i in range(3)])
    with open_ledger(url) as ledger:
        assert numbers(ledger) == [0, 1, 2]
        assert ledger.append(event(3)) == 4


def test_a_cursor_misses_nothing_while_writers_race(url: str) -> None:
    """Were a seq visible before a lower one, the follower's cursor would jump over it."""
    seen: list[int] = []
    stop = threading.Event()

    def follow() -> None:
        with open_ledger(url) as reader:
            while True:
                ending = stop.is_set()
                seen.extend(r.seq for r in reader.events(seen[-1] if seen else 0))
                if ending:
                    return

    def write(writer: int) -> None:
        with open_ledger(url) as ledger:
            for i in range(15):
                ledger.append_many([event(writer * 1000 + i * 10 + j) for j in range(1 + i % 3)])

    follower = threading.Thread(target=follow)
    follower.start()
    run_threads(write, range(4))
    stop.set()
    follower.join()
    assert seen == list(range(1, 4 * 30 + 1))


def test_a_closed_ledger_says_so(url: str) -> None:
    ledger = open_ledger(url)
    ledger.close()
    ledger.close()
    with pytest.raises(StoreError, match="closed"):
        ledger.append(event())


def test_closing_commits_what_was_queued(url: str) -> None:
    ledger = open_ledger(url)
    outcomes: list[Any] = []

    def call(i: int) -> None:
        try:
            outcomes.append(ledger.append(event(i)))
        except StoreError:
            outcomes.append(None)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    ledger.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 20
    with open_ledger(url) as again:
        assert again.last_seq() == sum(outcome is not None for outcome in outcomes)


def test_after_a_fork_the_child_is_told_to_open_its_own(ledger: Ledger) -> None:
    ledger.append(event(0))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ledger.append(event(1))
            os.write(write, b"stored")
        except StoreError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        assert "fork" in answer.read()
    assert ledger.append(event(2)) == 2


def test_a_holder_that_never_lets_go_makes_others_busy_and_loses_nothing(url: str) -> None:
    with open_ledger(url, wait_s=0.3) as ledger, raw_connection(url) as other:
        ledger.append(event(0))
        for statement in HOLD[back_end(url)]:
            other.execute(statement).close()
        began = time.monotonic()
        with pytest.raises(BusyError, match=r"held by .* for 0.3 s; try again"):
            ledger.append(event(1))
        assert time.monotonic() - began >= 0.3
        assert numbers(ledger) == [0]  # reading goes on
        other.execute("ROLLBACK").close()
        assert ledger.append(event(2)) == 2
        assert numbers(ledger) == [0, 2]


def test_events_can_neither_be_changed_nor_deleted(url: str) -> None:
    table = "rmkit.event" if back_end(url) == "postgres" else "event"
    with open_ledger(url) as ledger, raw_connection(url) as other:
        ledger.append(event(0))
        for statement in (f"UPDATE {table} SET actor = 'eve'", f"DELETE FROM {table}"):
            with pytest.raises(Exception, match="append-only"):
                other.execute(statement)
        assert [r.event.actor for r in ledger.events()] == ["ada"]


def test_a_ledger_from_a_newer_rmkit_is_refused(url: str) -> None:
    open_ledger(url).close()
    with raw_connection(url) as other:
        other.execute(
            "UPDATE rmkit.ledger SET version = 99" if back_end(url) == "postgres" else "PRAGMA user_version = 99"
        )
    with pytest.raises(StoreError, match=r"newer rmkit \(ledger schema 99, known here: 2\)"):
        open_ledger(url)


def test_migrations_apply_once_and_are_recorded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger(url) as ledger:
        ledger.append(event(0))
    table = "rmkit.later" if back_end(url) == "postgres" else "later"
    module = import_module(f"rmkit.ledger.{back_end(url)}")
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, (f"CREATE TABLE {table} (x INTEGER)",)))
    for number in (1, 2):  # the second opening finds it applied
        with open_ledger(url) as ledger:
            ledger.append(event(number))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer"):
        open_ledger(url)


def test_several_first_openers_create_one_ledger(url: str) -> None:
    def write(i: int) -> None:
        with open_ledger(url) as ledger:
            ledger.append(event(i))

    run_threads(write, range(6))
    with open_ledger(url) as ledger:
        assert sorted(numbers(ledger)) == list(range(6))


def test_an_opener_never_sees_a_ledger_half_made(tmp_path: Path) -> None:
    """Version, application and tables are read as of one moment; read one by one, about one round in ten failed."""
    for number in range(40):
        url = str(tmp_path / f"{number}" / "ledger.sqlite")
        run_threads(lambda i, url=url: open_ledger(url).close(), range(6))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payload=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**60), 2**60)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    ),
    time=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
)
def test_any_payload_and_time_comes_back(ledger: Ledger, payload: dict[str, Any], time: datetime) -> None:
    stored = event(payload=payload, time=time)
    seq = ledger.append(stored)
    assert next(iter(ledger.events(seq - 1))).event == stored
    assert ledger.append(stored) == seq


def row(key: int, content: int) -> Row:
    return Row(str(key), "k", "a", "t", str(content), None)


@given(
    stored=st.dictionaries(st.integers(0, 5), st.integers(0, 1), max_size=4),
    requests=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=4), max_size=5),
)
def test_the_plan_agrees_with_appending_one_request_at_a_time(
    stored: dict[int, int], requests: list[list[tuple[int, int]]]
) -> None:
    truth = dict(stored)
    places = {key: i + 1 for i, key in enumerate(stored)}
    expected: list[list[int] | None] = []
    for request in requests:
        trial, trial_places = dict(truth), dict(places)
        for key, content in request:
            if trial.setdefault(key, content) != content:
                expected.append(None)
                break
            trial_places.setdefault(key, len(trial_places) + 1)
        else:
            truth, places = trial, trial_places
            expected.append([places[key] for key, _ in request])
    fresh, outcomes = plan(
        [[row(*item) for item in request] for request in requests],
        [(i + 1, row(*item)) for i, item in enumerate(stored.items())],
        len(stored),
    )
    assert [None if isinstance(outcome, DataError) else outcome for outcome in outcomes] == expected
    assert [seq for seq, _ in fresh] == list(range(len(stored) + 1, len(truth) + 1))
    assert {int(r.id): int(r.payload) for _, r in fresh} == {k: v for k, v in truth.items() if k not in stored}


def test_an_unknown_url_is_refused() -> None:
    with pytest.raises(UsageError, match="no ledger back end for mysql://"):
        open_ledger("mysql://user:secret@host/db")


def run_threads(call: Callable[[int], Any], arguments: range) -> None:
    errors: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            call(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
