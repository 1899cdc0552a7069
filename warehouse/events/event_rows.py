"""Events as rows: which become judgments, which are rejected and why, and storing both.

Rows travel to DuckDB as Arrow tables, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa

from rmkit.data.example import SCORE_STRUCT
from rmkit.errors import DataError
from rmkit.ledger import Recorded
from warehouse.events.payloads import JudgmentPayload, read_payload
from warehouse.lineage.runs import recorded_run
from warehouse.sql import run

_MERGED = pa.schema(
    [
        ("event_id", pa.string()),
        ("unit_id", pa.int64()),
        ("rater", pa.string()),
        ("rater_kind", pa.string()),
        ("shown_order", pa.list_(pa.int32())),
        ("ranks", pa.list_(pa.int32())),
        ("strength", pa.float64()),
        ("scores", pa.list_(SCORE_STRUCT)),
        ("step_labels", pa.list_(pa.float64())),
        ("spans", pa.string()),
        ("edit", pa.string()),
        ("rationale", pa.string()),
        ("confidence", pa.float64()),
        ("verdict", pa.string()),
        ("active_ms", pa.int64()),
        ("wall_ms", pa.int64()),
        ("suggestion_seen", pa.bool_()),
        ("is_gold", pa.bool_()),
        ("propensity", pa.float64()),
        ("extra", pa.string()),
        ("supersedes", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
    ]
)
_REJECTED = pa.schema(
    [
        ("event_id", pa.string()),
        ("seq", pa.int64()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
    ]
)


class _Unit(NamedTuple):
    unit_id: int
    n_responses: int
    n_steps: int | None
    erased: bool


def classify_events(connection: duckdb.DuckDBPyConnection, records: Sequence[Recorded]) -> tuple[pa.Table, pa.Table]:
    """(_MERGED, _REJECTED) rows of the events."""
    read = [(record, _read(record)) for record in records]
    units = _units(connection, {payload.unit for _, payload in read if not isinstance(payload, str)})
    kinds = dict(run(connection, "SELECT name, kind FROM rater"))
    merged, rejected = [], []
    for record, payload in read:
        row = payload if isinstance(payload, str) else _row(record, payload, units, kinds)
        if isinstance(row, str):
            seq, event = record
            rejected.append(
                {"event_id": str(event.id), "seq": seq, "kind": event.kind, "reason": row, "time": event.time}
            )
        else:
            merged.append(row)
    return pa.Table.from_pylist(merged, _MERGED), pa.Table.from_pylist(rejected, _REJECTED)


def _read(record: Recorded) -> JudgmentPayload | str:
    try:
        return read_payload(record.event)
    except DataError as error:
        return str(error)


def _units(connection: duckdb.DuckDBPyConnection, hashes: set[str]) -> dict[str, _Unit]:
    target = pa.table({"hex": pa.array(sorted(hashes), pa.string())})
    connection.register("wanted", target)
    try:
        rows = run(
            connection,
            "SELECT replace(u.h::VARCHAR, '-', ''), unit_id, len(resp_ids), len(flatten(step_ends)), "
            "coalesce(p.h IS NOT NULL AND p.messages IS NULL OR list_has_any(resp_ids, "
            "(SELECT list(resp_id) FROM response WHERE messages IS NULL)), false) "
            "FROM unit u LEFT JOIN prompt p USING (prompt_id) WHERE u.h IN (SELECT hex::UUID FROM wanted)",
        )
    finally:
        connection.unregister("wanted")
    return {name: _Unit(*rest) for name, *rest in rows}


def _row(
    record: Recorded, payload: JudgmentPayload, units: dict[str, _Unit], kinds: dict[str, str]
) -> dict[str, object] | str:
    """The judgment's row, or why there is none. `kinds` learns the raters seen for the first time."""
    event = record.event
    unit = units.get(payload.unit)
    if unit is None:
        return f"unit {payload.unit} is not in the warehouse"
    if unit.erased:
        return f"unit {payload.unit} was erased"  # a late edit would bring quotes of its text back
    if misfit := payload.misfit(unit.n_responses, unit.n_steps):
        return misfit
    rater = payload.rater or event.actor
    if kinds.setdefault(rater, payload.rater_kind) != payload.rater_kind:
        return f"rater {rater!r} is known as {kinds[rater]}, this event says {payload.rater_kind}"
    return payload.columns() | {
        "event_id": str(event.id),
        "unit_id": unit.unit_id,
        "rater": rater,
        "rater_kind": payload.rater_kind,
        "supersedes": str(event.supersedes) if event.supersedes else None,
        "time": event.time,
    }


def store(connection: duckdb.DuckDBPyConnection, merged: pa.Table, where: str) -> int:
    """Insert the judgments not yet known and their raters; the number inserted."""
    if not len(merged):
        return 0
    connection.register("merged", merged)
    try:
        fresh = "SELECT * FROM merged WHERE event_id::UUID NOT IN (SELECT event_id FROM judgment)"
        run(connection, f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}")
    finally:
        connection.unregister("merged")
    [(n_new,)] = run(connection, "SELECT count(*) FROM fresh")
    if not n_new:
        return 0
    run(
        connection,
        "INSERT INTO rater SELECT (SELECT coalesce(max(rater_id), 0) FROM rater) + row_number() OVER (ORDER BY rater), "
        "rater, any_value(rater_kind) FROM fresh ANTI JOIN rater ON rater.name = fresh.rater GROUP BY rater",
    )
    with recorded_run(connection, "sync", where, {"n_judgments": n_new}) as run_id:
        run(
            connection,
            "INSERT INTO judgment BY NAME SELECT fresh.* EXCLUDE (rater, rater_kind), rater_id, ?::UUID AS run_id "
            "FROM fresh JOIN rater ON rater.name = fresh.rater",
            [run_id],
        )
    return int(n_new)


def store_rejects(connection: duckdb.DuckDBPyConnection, merged: pa.Table, rejected: pa.Table) -> None:
    """Bring event_reject up to date for these events; nothing is written where nothing changed."""
    connection.register("merged", merged)
    connection.register("rejected", rejected)
    try:
        run(connection, "DELETE FROM event_reject WHERE event_id IN (SELECT event_id::UUID FROM merged)")
        run(
            connection,
            "DELETE FROM event_reject USING rejected r "
            "WHERE event_reject.event_id = r.event_id::UUID AND event_reject.reason <> r.reason",
        )
        run(
            connection,
            "INSERT INTO event_reject BY NAME SELECT * FROM rejected "
            "WHERE event_id::UUID NOT IN (SELECT event_id FROM event_reject)",
        )
    finally:
        connection.unregister("merged")
        connection.unregister("rejected")
