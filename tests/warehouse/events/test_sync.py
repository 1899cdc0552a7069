"""Merging the ledger into the warehouse."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rmkit.cli.main import call
from rmkit.ledger import Ledger, open_ledger
from rmkit.types import Event
from warehouse.events.payloads import KINDS
from warehouse.events.sync import sync
from warehouse.store import open_warehouse

ROOT = Path(__file__).parents[3]
PAIR, STEPS, ABSENT = (uuid.UUID(int=0xABC0 + i) for i in range(3))
TIME = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)

ADD_UNITS = """
INSERT INTO unit BY NAME SELECT * FROM (VALUES
    (1, ?::UUID, 'pair', 1, [11, 12]::BIGINT[], NULL::INTEGER[][]),
    (2, ?::UUID, 'steps', 1, [13]::BIGINT[], [[4, 9, 15]]::INTEGER[][])
) AS u (unit_id, h, kind, prompt_id, resp_ids, step_ends)
"""


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with open_ledger() as opened:
        yield opened


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with two units, to be copied (making one takes longer)."""
    path = tmp_path_factory.mktemp("template") / "warehouse.duckdb"
    with open_warehouse(path) as connection:
        connection.execute(ADD_UNITS, [PAIR, STEPS]).fetchall()
    return path


@pytest.fixture
def filled_home(home: Path, template: Path) -> Path:
    home.mkdir(exist_ok=True)
    shutil.copyfile(template, home / "warehouse.duckdb")
    return home


@pytest.fixture
def warehouse(filled_home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse() as connection:
        yield connection


def vote(winner: int = 0, *, unit: uuid.UUID = PAIR, actor: str = "ada", **fields: Any) -> Event:
    ranks = [0, 1] if winner == 0 else [1, 0]
    return Event(kind="judgment", actor=actor, payload={"unit": unit.hex, "ranks": ranks} | fields, time=TIME)


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def add_absent_unit(connection: duckdb.DuckDBPyConnection) -> None:
    pair = "3 AS unit_id, ?::UUID AS h, 'pair' AS kind, 1 AS prompt_id, [11, 13] AS resp_ids"
    connection.execute(f"INSERT INTO unit BY NAME SELECT {pair}", [ABSENT]).fetchall()


def everything(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    tables = ("judgment", "rater", "event_reject", "sync_cursor", "run")
    return {table: ask(connection, f"SELECT * FROM {table} ORDER BY ALL") for table in tables}


def rejected(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [reason for (reason,) in ask(connection, "SELECT reason FROM event_reject ORDER BY seq")]


def test_every_field_of_a_judgment_arrives(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    first = vote()
    ledger.append(first)
    payload = {
        "unit": PAIR.hex,
        "rater": "judge-7",
        "rater_kind": "llm",
        "ranks": [1, 0],
        "shown_order": [1, 0],
        "strength": 2,
        "scores": [
            {"response": 1, "aspect": "clarity", "value": 4.5},
            {"response": 0, "aspect": "clarity", "value": 2},
        ],
        "spans": [{"response": 0, "start": 3, "end": 9}],
        "edit": [{"role": "assistant", "content": "better \u00e9"}],
        "rationale": "the first is wrong",
        "confidence": 0.75,
        "active_ms": 1500,
        "wall_ms": 9000,
        "suggestion_seen": False,
        "is_gold": True,
        "propensity": 0.25,
        "extra": {"b": 1, "a": [None]},
    }
    second = Event(kind="judgment", actor="worker", payload=payload, time=TIME, supersedes=first.id)
    ledger.append(second)
    report = sync(warehouse, ledger)
    assert (report.n_events, report.n_merged, report.cursor, report.behind) == (2, 2, 2, 0)
    [row] = (
        warehouse.sql(
            f"SELECT judgment.* EXCLUDE (rater_id, run_id), rater.name, rater.kind, run.kind AS run_kind FROM judgment "
            f"JOIN rater USING (rater_id) JOIN run USING (run_id) WHERE event_id = '{second.id}'"
        )
        .to_arrow_table()
        .to_pylist()
    )
    assert row == {
        "event_id": str(second.id),
        "unit_id": 1,
        "column_order": None,
        "shown_order": [1, 0],
        "ranks": [1, 0],
        "strength": 2.0,
        "scores": [
            {"response": 1, "aspect": "clarity", "value": 4.5},
            {"response": 0, "aspect": "clarity", "value": 2.0},
        ],
        "step_labels": None,
        "spans": '[{"end":9,"response":0,"start":3}]',
        "edit": '[{"content":"better \u00e9","role":"assistant"}]',
        "rationale": "the first is wrong",
        "confidence": 0.75,
        "verdict": "ok",
        "active_ms": 1500,
        "wall_ms": 9000,
        "suggestion_seen": False,
        "is_gold": True,
        "propensity": 0.25,
        "extra": '{"a":[null],"b":1}',
        "supersedes": str(first.id),
        "source_id": None,
        "time": TIME,
        "name": "judge-7",
        "kind": "llm",
        "run_kind": "sync",
    }
    # what was superseded is still there, under the actor's name
    assert ask(
        warehouse, f"SELECT ranks, name, kind FROM judgment JOIN rater USING (rater_id) WHERE event_id = '{first.id}'"
    ) == [([0, 1], "ada", "human")]


def test_reactions_edits_and_step_labels(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    edit = [{"role": "assistant", "content": "so"}]
    ledger.append_many(
        [
            Event(kind="reaction", actor="u1", payload={"unit": PAIR.hex, "response": 1, "value": -1}),
            Event(kind="reaction", actor="u2", payload={"unit": STEPS.hex, "value": 5, "aspect": "stars"}),
            Event(kind="edit", actor="u1", payload={"unit": STEPS.hex, "edit": edit}),
            Event(kind="judgment", actor="u1", payload={"unit": STEPS.hex, "step_labels": [1, 0.5, None]}),
            Event(kind="judgment", actor="u1", payload={"unit": PAIR.hex, "verdict": "skip"}),
        ]
    )
    assert sync(warehouse, ledger).n_merged == 5
    assert ask(
        warehouse,
        "SELECT name, unit_id, scores, edit, step_labels, verdict FROM judgment JOIN rater USING (rater_id) "
        "ORDER BY name, unit_id, verdict, edit",
    ) == [
        ("u1", 1, [{"response": 1, "aspect": "reaction", "value": -1.0}], None, None, "ok"),
        ("u1", 1, None, None, None, "skip"),
        ("u1", 2, None, '[{"content":"so","role":"assistant"}]', None, "ok"),
        ("u1", 2, None, None, [1.0, 0.5, None], "ok"),
        ("u2", 2, [{"response": 0, "aspect": "stars", "value": 5.0}], None, None, "ok"),
    ]


def test_a_second_sync_changes_nothing(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    ledger.append_many([vote(), vote(1), vote(unit=ABSENT), Event(kind="reward", actor="m", payload={"v": 1})])
    first = sync(warehouse, ledger)
    assert (first.n_merged, first.n_rejected, first.ignored) == (2, 1, {"reward": 1})
    before = everything(warehouse)
    second = sync(warehouse, ledger)
    assert everything(warehouse) == before
    assert (second.n_events, second.n_merged, second.n_rejected, second.n_waiting) == (0, 0, 0, 1)
    assert second.cursor == first.cursor == 4


def test_only_new_events_are_read(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    ledger.append(vote())
    sync(warehouse, ledger)
    ledger.append_many([vote(1), vote(1)])
    report = sync(warehouse, ledger)
    assert (report.n_events, report.n_merged, report.cursor) == (2, 2, 3)


def test_other_kinds_stay_in_the_ledger(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    ledger.append_many([Event(kind="reward", actor="m", payload={"value": i}) for i in range(7)])
    ledger.append(Event(kind="erase", actor="boss", payload={}))
    report = sync(warehouse, ledger)
    assert (report.n_events, report.ignored, report.cursor) == (0, {"reward": 7, "erase": 1}, 8)
    assert ask(warehouse, "SELECT count(*) FROM judgment") == [(0,)]
    assert ask(warehouse, "SELECT count(*) FROM event_reject") == [(0,)]
    assert ledger.counts(0, 8) == {"erase": 1, "reward": 7}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "unit: Field required"),
        ({"unit": "x"}, "unit: String should match pattern"),
        ({"unit": PAIR.hex}, "verdict ok needs one of ranks, scores, step_labels, spans, edit"),
        ({"unit": PAIR.hex, "ranks": [None, None]}, "verdict ok needs one of"),
        ({"unit": PAIR.hex, "rank": [0, 1]}, "rank: Extra inputs are not permitted"),
        ({"unit": PAIR.hex, "ranks": [0, 1, 2]}, "ranks has 3 entries, the unit has 2 responses"),
        ({"unit": PAIR.hex, "ranks": [1, 2]}, "the best rank must be 0, got 1"),
        ({"unit": PAIR.hex, "ranks": ["0", 1]}, "ranks.0: Input should be a valid integer"),
        ({"unit": PAIR.hex, "ranks": [0, 2**40]}, "ranks.1: Input should be less than"),
        ({"unit": PAIR.hex, "ranks": [0, -1]}, "ranks.1: Input should be greater than or equal to 0"),
        ({"unit": PAIR.hex, "ranks": [0, 1], "shown_order": [1, 1]}, "shown_order [1, 1] is no order"),
        ({"unit": PAIR.hex, "scores": [{"response": 2, "aspect": "a", "value": 1}]}, "scores rates response 2"),
        ({"unit": STEPS.hex, "step_labels": [1, 0]}, "step_labels has 2 entries, the unit has 3 steps"),
        ({"unit": STEPS.hex, "step_labels": [1, 0, 7]}, "step_labels.2: Input should be less than or equal to 1"),
        (
            {"unit": PAIR.hex, "ranks": [0, 1], "verdict": "maybe"},
            "verdict: Input should be 'ok', 'skip' or 'bad_item'",
        ),
        ({"unit": PAIR.hex, "ranks": [0, 1], "propensity": 0}, "propensity: Input should be greater than 0"),
        ({"unit": PAIR.hex, "edit": [{"role": "robot", "content": "x"}]}, "edit.0.role: Input should be 'system'"),
        ({"unit": PAIR.hex, "ranks": [0, 1], "rater_kind": "dog"}, "rater_kind: Input should be 'human', 'llm'"),
        ({"unit": ABSENT.hex, "ranks": [0, 1]}, f"unit {ABSENT.hex} is not in the warehouse"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_event_is_kept_with_its_reason_and_stops_nobody(
    ledger: Ledger, warehouse: duckdb.DuckDBPyConnection, payload: dict[str, Any], reason: str
) -> None:
    faulty = Event(kind="judgment", actor="ada", payload=payload, time=TIME)
    ledger.append_many([vote(), faulty, vote(1)])
    report = sync(warehouse, ledger)
    assert (report.n_events, report.n_merged, report.n_rejected, report.n_waiting) == (3, 2, 1, 1)
    [(event_id, seq, kind, found, when)] = ask(warehouse, "SELECT * FROM event_reject")
    assert (event_id, seq, kind, when) == (faulty.id, 2, "judgment", TIME)
    assert reason in found


def test_an_edit_must_hold_one(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    ledger.append(Event(kind="edit", actor="ada", payload={"unit": PAIR.hex, "ranks": [0, 1]}))
    sync(warehouse, ledger)
    assert rejected(warehouse) == ["edit: required in an event of this kind"]


def test_a_name_stands_for_one_kind_of_rater(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    ledger.append_many([vote(actor="x"), vote(actor="x", rater_kind="llm"), vote(actor="y", rater_kind="llm")])
    assert sync(warehouse, ledger).n_rejected == 1
    assert rejected(warehouse) == ["rater 'x' is known as human, this event says llm"]
    ledger.append(vote(actor="y"))
    sync(warehouse, ledger)
    assert rejected(warehouse)[1] == "rater 'y' is known as llm, this event says human"
    assert ask(warehouse, "SELECT name, kind FROM rater ORDER BY rater_id") == [("x", "human"), ("y", "llm")]


def test_votes_for_an_unknown_unit_are_merged_once_it_is_known(
    ledger: Ledger, warehouse: duckdb.DuckDBPyConnection
) -> None:
    early = [vote(i % 2, unit=ABSENT, actor=f"r{i}") for i in range(4)]
    ledger.append_many([*early, vote()])
    assert sync(warehouse, ledger).n_waiting == 4
    add_absent_unit(warehouse)
    report = sync(warehouse, ledger)
    assert (report.n_recovered, report.n_waiting, report.n_events) == (4, 0, 0)
    merged = {event_id for (event_id,) in ask(warehouse, "SELECT event_id FROM judgment WHERE unit_id = 3")}
    assert merged == {event.id for event in early}
    assert sync(warehouse, ledger).n_recovered == 0


def test_a_reject_keeps_its_newest_reason(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    ledger.append(Event(kind="judgment", actor="ada", payload={"unit": ABSENT.hex, "ranks": [0, 1, 2]}))
    sync(warehouse, ledger)
    add_absent_unit(warehouse)
    sync(warehouse, ledger)
    assert rejected(warehouse) == ["ranks has 3 entries, the unit has 2 responses"]


@pytest.mark.parametrize(("part", "key"), [("prompt", "prompt_id"), ("response", "resp_id")])
def test_late_judgments_of_an_erased_unit_do_not_bring_text_back(
    ledger: Ledger, warehouse: duckdb.DuckDBPyConnection, part: str, key: str
) -> None:
    add_absent_unit(warehouse)
    ask(warehouse, "INSERT INTO prompt VALUES (1, uuid(), '[]', 1)")
    ask(warehouse, "INSERT INTO response VALUES (11, uuid(), '[]'), (12, uuid(), '[]'), (13, uuid(), '[]')")
    ask(warehouse, f"UPDATE {part} SET messages = NULL WHERE {key} IN (1, 12)")
    ledger.append_many([vote(rationale="it quotes"), vote(unit=ABSENT)])
    sync(warehouse, ledger)
    gone = f"unit {PAIR.hex} was erased"
    assert rejected(warehouse) == ([gone] if part == "response" else [gone, f"unit {ABSENT.hex} was erased"])


def test_many_batches_equal_one(ledger: Ledger, warehouse: duckdb.DuckDBPyConnection) -> None:
    rng = random.Random(5)
    kinds = [rng.choice(["vote", "vote", "reward", "bad"]) for _ in range(60)]
    ledger.append_many(
        [
            Event(kind="reward", actor="m", payload={})
            if kind == "reward"
            else vote(i % 2, unit=ABSENT if kind == "bad" else PAIR, actor=f"r{i % 4}")
            for i, kind in enumerate(kinds)
        ]
    )
    parts = []
    while not parts or parts[-1].behind:
        parts.append(sync(warehouse, ledger, batch=7, max_batches=1))
        [(cursor, judgments, rejects)] = ask(
            warehouse,
            "SELECT (SELECT seq FROM sync_cursor), (SELECT count(*) FROM judgment), count(*) FROM event_reject",
        )
        # the cursor tells exactly what is in the tables
        assert cursor == parts[-1].cursor == 60 - parts[-1].behind
        assert (judgments, rejects) == (kinds[:cursor].count("vote"), kinds[:cursor].count("bad"))
    assert len(parts) > 3
    assert sum(part.n_merged for part in parts) == kinds.count("vote")
    assert sum(part.ignored.get("reward", 0) for part in parts) == kinds.count("reward")


def test_a_merged_event_is_never_stored_twice_even_if_the_cursor_is_lost(
    ledger: Ledger, warehouse: duckdb.DuckDBPyConnection
) -> None:
    ledger.append_many([vote(), vote(1), vote(unit=ABSENT)])
    sync(warehouse, ledger)
    before = everything(warehouse)
    ask(warehouse, "DELETE FROM sync_cursor")
    report = sync(warehouse, ledger)
    assert (report.n_events, report.n_merged, report.n_known, report.n_rejected) == (3, 0, 2, 1)
    assert everything(warehouse) == before


def test_another_ledger_is_read_from_its_beginning(
    ledger: Ledger, warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    ledger.append_many([vote(), vote()])
    sync(warehouse, ledger)
    with open_ledger(tmp_path / "other.sqlite") as other:
        other.append_many([vote(1), vote(1), vote(1)])
        assert sync(warehouse, other).n_merged == 3
        other.append(vote(1))
        assert sync(warehouse, other).n_merged == 1
    assert ask(warehouse, "SELECT ranks, count(*) FROM judgment GROUP BY ranks ORDER BY ranks") == [
        ([0, 1], 2),
        ([1, 0], 4),
    ]


@pytest.mark.parametrize("step", ["store", "store_rejects", "_event_at"])
def test_a_failure_within_a_batch_leaves_nothing_of_it(
    ledger: Ledger, warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ledger.append_many([vote(), vote(unit=ABSENT)])
    before = everything(warehouse)

    def fail(*_: Any) -> None:
        raise RuntimeError("power")

    with monkeypatch.context() as patch:
        patch.setattr(f"warehouse.events.sync.{step}", fail)
        with pytest.raises(RuntimeError, match="power"):
            sync(warehouse, ledger)
    assert everything(warehouse) == before
    assert sync(warehouse, ledger).n_merged == 1


def test_a_postgres_ledger_is_merged_the_same_way(
    warehouse: duckdb.DuckDBPyConnection, fresh_database: Any, tmp_path: Path
) -> None:
    events = [vote(i % 2, actor=f"r{i % 3}", unit=[PAIR, ABSENT][i % 5 == 0]) for i in range(20)]
    with open_ledger(fresh_database()) as ledger:
        ledger.append_many(events)
        report = sync(warehouse, ledger, batch=6)
    assert (report.n_merged, report.n_rejected, report.cursor) == (16, 4, 20)
    names = ask(warehouse, "SELECT name FROM run WHERE kind = 'sync'")
    assert names
    assert all(name == "postgresql://rmkit@/ledger" for (name,) in names)  # no password in the database


def test_the_command_merges_the_home_and_reports(filled_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_ledger() as ledger:
        ledger.append_many([vote(), vote(1), vote(unit=ABSENT), Event(kind="reward", actor="m", payload={})])
    assert call("sync", []) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "left in the ledger (not judgments): 1 reward",
        "1 events wait in event_reject; each sync tries them again (an unknown unit needs its file: rmkit ingest FILE; "
        "one that was queued: rmkit label add PROJECT)",
    ]
    assert call("sync", ["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n_merged"], report["n_waiting"], report["cursor"], report["behind"]) == (0, 1, 4, 0)


# ---- kill -9 while merging ----

MERGER = """
import sys
from rmkit.ledger import open_ledger
from warehouse.store import open_warehouse
from warehouse.events.sync import sync
with open_ledger() as ledger, open_warehouse() as connection:
    print("ready", flush=True)
    while sync(connection, ledger, batch=40, max_batches=1).behind:
        pass
    print("level", flush=True)
"""


def check_kills(n_kills: int) -> None:
    rng = random.Random(n_kills)
    with open_ledger() as ledger:
        kills = 0
        while kills < n_kills:
            ledger.append_many(
                [vote(i % 2, unit=ABSENT if i % 9 == 0 else PAIR, actor=f"r{i % 7}") for i in range(800)]
            )
            process = subprocess.Popen([sys.executable, "-c", MERGER], cwd=ROOT, text=True, stdout=subprocess.PIPE)
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            kills += process.stdout.read() == ""  # one that finished first is not counted
            process.wait()
            with open_warehouse() as connection:
                check_whole_batches(connection, ledger)
    assert call("sync", []) == 0
    with open_ledger() as ledger, open_warehouse() as connection:
        assert check_whole_batches(connection, ledger) == ledger.last_seq()


def check_whole_batches(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> int:
    """The tables hold exactly the events up to the cursor, each once; the cursor."""
    cursor = (ask(connection, "SELECT seq FROM sync_cursor") or [(0,)])[0][0]
    stored = ask(connection, "SELECT event_id FROM judgment UNION ALL SELECT event_id FROM event_reject")
    expected = [record.event.id for record in ledger.events(kinds=KINDS, limit=cursor)]
    assert sorted(event_id for (event_id,) in stored) == sorted(expected)
    return int(cursor)


def test_three_kills_leave_no_half_batch(filled_home: Path) -> None:
    check_kills(3)


@pytest.mark.slow
def test_twelve_kills_leave_no_half_batch(filled_home: Path) -> None:
    check_kills(12)
