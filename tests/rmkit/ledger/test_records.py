"""The ledger's mutable records: every test runs on both back ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmkit.errors import BusyError, ConflictError, DataError, RmkitError, StoreError
from rmkit.ledger import Ledger, Record, open_ledger
from rmkit.ledger.records import encode_put, end_of_prefix, plan_puts
from rmkit.ledger.transfer import copy_ledger, snapshot
from rmkit.types import Event
from tests.postgres import BACK_ENDS, raw_connection

ROOT = Path(__file__).parents[3]


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


def test_a_record_comes_back_as_it_was_and_counts_its_puts(ledger: Ledger) -> None:
    assert ledger.record("draft", "é/😀 'quoted\"") is None
    value = {"z": [1, None, 2.5, True], "text": 'tab\t nul\0 quote" back\\slash\nπ 😀', "": {}}
    assert ledger.put("draft", "é/😀 'quoted\"", {"first": 1}) == 1
    assert ledger.put("draft", "é/😀 'quoted\"", value) == 2
    assert ledger.record("draft", "é/😀 'quoted\"") == Record("é/😀 'quoted\"", value, 2)
    assert ledger.record("assignment", "é/😀 'quoted\"") is None  # the kind is part of its identity


def test_a_put_that_names_its_version_never_overwrites_anothers(ledger: Ledger) -> None:
    assert ledger.put("assignment", "unit1", {"to": "ada"}, expect=0) == 1
    with pytest.raises(ConflictError, match="assignment 'unit1' has version 1, expected no such record yet: read"):
        ledger.put("assignment", "unit1", {"to": "ada"}, expect=0)  # the same value: still two claims
    assert ledger.put("assignment", "unit1", {"to": "bob"}, expect=1) == 2
    with pytest.raises(ConflictError, match="has version 2, expected version 1"):
        ledger.put("assignment", "unit1", {"to": "eve"}, expect=1)
    with pytest.raises(ConflictError, match="'unit2' does not exist, expected version 3"):
        ledger.put("assignment", "unit2", {"to": "eve"}, expect=3)
    assert ledger.record("assignment", "unit1") == Record("unit1", {"to": "bob"}, 2)
    assert ledger.record("assignment", "unit2") is None
    assert issubclass(ConflictError, RmkitError)


def test_records_of_a_kind_come_in_order_of_code_points_by_prefix_and_in_pages(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmkit.ledger.records.PAGE", 2)
    keys = ["a", "a/1", "a/10", "a/2", "a0", "B", "é", "😀", "a/\U0010ffff", "\ue000"]
    for i, key in enumerate(keys):
        ledger.put("x", key, {"i": i})
    ledger.put("y", "a/3", {})

    def listed(**options: Any) -> list[str]:
        return [record.key for record in ledger.records("x", **options)]

    assert listed() == sorted(keys)
    assert listed(prefix="a/") == ["a/1", "a/10", "a/2", "a/\U0010ffff"]
    assert listed(prefix="a/", after="a/10") == ["a/2", "a/\U0010ffff"]
    assert listed(prefix="a/", limit=3) == ["a/1", "a/10", "a/2"]
    assert listed(after="a/2", limit=2) == ["a/\U0010ffff", "a0"]
    assert listed(limit=0) == listed(prefix="nothing") == listed(after="😀") == []
    assert listed(prefix="a/\U0010ffff") == ["a/\U0010ffff"]
    assert ledger.record_kinds() == ["x", "y"]


def test_many_records_at_once(ledger: Ledger) -> None:
    ledger.put("call", "b", {"old": True})
    ledger.put_many("call", [Record("a", {"i": 0}, 0), Record("b", {"i": 1}, 0), Record("c", {"i": 2}, 7)])
    assert list(ledger.records("call")) == [
        Record("a", {"i": 0}, 1),
        Record("b", {"i": 1}, 2),
        Record("c", {"i": 2}, 7),
    ]
    ledger.put_many("call", [])


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("", "k", {}, "kind must be"),
        ("k", "", {}, "key must be"),
        ("k", "a\0b", {}, "NUL"),
        ("k", "\ud800", {}, "canonical JSON"),
        ("k", "k", {"x": float("nan")}, "canonical JSON"),
        ("k", "k", [1], "must be a mapping, got list"),
    ],
)
def test_what_cannot_be_stored_is_refused(ledger: Ledger, kind: str, key: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ledger.put(kind, key, value)
    assert ledger.record_kinds() == []


def test_puts_share_commits_with_events_and_a_refusal_touches_nothing_else(ledger: Ledger) -> None:
    ledger.put("x", "taken", {})
    outcomes: dict[int, Any] = {}

    def call(i: int) -> None:
        try:
            match i % 3:
                case 0:
                    outcomes[i] = ledger.append(Event(kind="judgment", actor="ada", payload={"i": i}))
                case 1:
                    outcomes[i] = ledger.put("x", f"key{i}", {"i": i}, expect=0)
                case _:
                    outcomes[i] = ledger.put("x", "taken", {"i": i}, expect=0)
        except ConflictError:
            outcomes[i] = "refused"

    threads = [threading.Thread(target=call, args=(i,)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes[i] for i in range(0, 30, 3)) == list(range(1, 11))
    assert [outcomes[i] for i in range(1, 30, 3)] == [1] * 10
    assert [outcomes[i] for i in range(2, 30, 3)] == ["refused"] * 10
    assert ledger.record("x", "taken") == Record("taken", {}, 1)


COUNTER = """
import sys
from rmkit.errors import ConflictError
from rmkit.ledger import open_ledger
with open_ledger(sys.argv[1]) as ledger:
    for _ in range(int(sys.argv[2])):
        while True:
            found = ledger.record("counter", "n")
            n, version = (found.value["n"], found.version) if found else (0, 0)
            try:
                ledger.put("counter", "n", {"n": n + 1}, expect=version)
                break
            except ConflictError:
                pass
"""


def test_no_increment_of_several_processes_is_lost(url: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", COUNTER, url, "12"], cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with open_ledger(url) as ledger:
        assert ledger.record("counter", "n") == Record("n", {"n": 36}, 36)


PUTTER = """
import os, sys, threading
from rmkit.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
def put(thread):
    for i in range(10**9):
        version = ledger.put("call", f"{thread}", {"i": i, "text": "x" * 3000})
        os.write(1, f"{thread} {i}\\n".encode())
for thread in range(4):
    threading.Thread(target=put, args=(thread,)).start()
"""


def test_no_acknowledged_put_is_lost_in_a_kill(url: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", PUTTER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(60)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    assert process.wait() == -signal.SIGKILL
    acknowledged = {thread: int(i) for thread, i in map(str.split, lines)}  # the last of each thread
    with open_ledger(url) as ledger:
        for record in ledger.records("call"):
            assert record.version == record.value["i"] + 1
            assert record.value["i"] - acknowledged.get(record.key, -1) in (0, 1)  # at most one was in flight
        assert set(acknowledged) <= {record.key for record in ledger.records("call")}


def test_a_held_ledger_makes_puts_busy_and_reading_goes_on(url: str) -> None:
    hold = ["BEGIN", "UPDATE rmkit.ledger SET last_seq = last_seq"] if "://" in url else ["BEGIN IMMEDIATE"]
    with open_ledger(url, wait_s=0.3) as ledger, raw_connection(url) as other:
        ledger.put("x", "a", {"i": 0})
        for statement in hold:
            other.execute(statement).close()
        with pytest.raises(BusyError, match="try again"):
            ledger.put("x", "a", {"i": 1})
        assert ledger.record("x", "a") == Record("a", {"i": 0}, 1)
        other.execute("ROLLBACK").close()
        assert ledger.put("x", "a", {"i": 2}, expect=1) == 2


def test_a_closed_ledger_takes_no_puts(url: str) -> None:
    ledger = open_ledger(url)
    ledger.close()
    with pytest.raises(StoreError, match="closed"):
        ledger.put("x", "a", {})


def test_a_ledger_of_the_first_schema_gets_records(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "rmkit.ledger.postgres" if "://" in url else "rmkit.ledger.sqlite"
    migrations = __import__(module, fromlist=["MIGRATIONS"]).MIGRATIONS
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.MIGRATIONS", migrations[:1])
        with open_ledger(url) as old:
            old.append(Event(kind="judgment", actor="ada", payload={"i": 1}))
    with open_ledger(url) as ledger:
        assert ledger.put("x", "a", {}) == 1
        assert ledger.last_seq() == 1


def test_copies_carry_records_with_their_versions(
    ledger: Ledger, tmp_path: Path, fresh_database: Callable[[str], str]
) -> None:
    for i in range(3):
        ledger.put("draft", "one", {"i": i})
    ledger.put("assignment", "two", {"to": "ada"})
    expected = {kind: list(ledger.records(kind)) for kind in ("assignment", "draft")}
    snapshot(ledger, tmp_path / "copy.sqlite")
    there = fresh_database("elsewhere") if Path(ledger.where).exists() else str(tmp_path / "elsewhere.sqlite")
    with open_ledger(tmp_path / "copy.sqlite") as copy, open_ledger(there) as target:
        for _ in range(2):
            copy_ledger(copy, target)
            assert {kind: list(target.records(kind)) for kind in target.record_kinds()} == expected
        ledger.put("draft", "one", {"i": 3})
        copy_ledger(ledger, target)  # an older state is brought level
        assert target.record("draft", "one") == Record("one", {"i": 3}, 4)
        with pytest.raises(StoreError, match="draft record 'one' in a state"):
            copy_ledger(copy, target)
        assert target.record("draft", "one") == Record("one", {"i": 3}, 4)


def test_a_put_whose_answer_was_lost_is_recognized() -> None:
    put = encode_put("x", "a", {"i": 1}, expect=0)
    [stored], [answer] = plan_puts([put], [])
    assert answer == [1]
    assert plan_puts([put], [stored]) == ([], [[1]])
    same_value = encode_put("x", "a", {"i": 1}, expect=0)
    changed, [refusal] = plan_puts([same_value], [stored])
    assert changed == []
    assert isinstance(refusal, ConflictError)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.none() | st.integers(0, 3)),
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_a_shared_commit_is_as_good_as_one_commit_each(puts: list[tuple[str, int, int | None]], cut: int) -> None:
    made = [encode_put("x", key, {"v": value}, expect=expect) for key, value, expect in puts]
    truth: dict[str, tuple[int, int]] = {}  # key -> (version, value): the rule, written down once more
    expected: list[int | None] = []
    for key, value, expect in puts:
        version = truth.get(key, (0, 0))[0]
        accepted = expect is None or expect == version
        if accepted:
            truth[key] = (version + 1, value)
        expected.append(version + 1 if accepted else None)
    first, answers = plan_puts(made[:cut], [])
    stored = {record.key: record for record in first}
    second, more = plan_puts(made[cut:], list(stored.values()))
    stored |= {record.key: record for record in second}
    assert [None if isinstance(a, Exception) else a[0] for a in [*answers, *more]] == expected
    assert {key: (record.version, record.value) for key, record in stored.items()} == {
        key: (version, f'{{"v":{value}}}') for key, (version, value) in truth.items()
    }


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_end_of_a_prefix_bounds_exactly_its_texts(prefix: str, text: str) -> None:
    end = end_of_prefix(prefix)
    for candidate in (text, prefix + text, prefix[:-1] + text):
        inside = candidate >= prefix and (end is None or candidate < end)
        assert inside == candidate.startswith(prefix)


def test_the_end_of_a_prefix_at_the_edges() -> None:
    assert end_of_prefix("a/") == "a0"
    assert end_of_prefix("a\U0010ffff") == "b"
    assert end_of_prefix("\U0010ffff") is end_of_prefix("") is None
    assert end_of_prefix("\ud7ff") == "\ue000"
