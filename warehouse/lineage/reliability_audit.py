"""The reliability audit of denoising steps and the truth about injected label noise: writing, reading, judging.

A step hands over frames keyed by table (`label_flip`, `reliability`) with the row's `id`; `store` turns ids into the
warehouse's integers. The truth of a version is the parity of the flips on the way to it: a row flipped twice is right
again. Rows whose text a later step rewrote are followed to the unit they came from.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

import duckdb
import pyarrow as pa

from rmkit.errors import DataError
from warehouse.sql import run
from warehouse.versions.versions import members

FLIPS = pa.schema([("id", pa.string()), ("kind", pa.string())])
AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("method", pa.string()),
        ("epoch", pa.int32()),
        ("model", pa.string()),
        ("margin", pa.float64()),
        ("loss", pa.float64()),
        ("kept", pa.bool_()),
        ("selected_by", pa.string()),
        ("rank", pa.int64()),
        ("times_kept", pa.int32()),
        ("weight", pa.float64()),
        ("reason", pa.string()),
        ("evidence", pa.string()),
    ]
)
TABLES = {"label_flip": FLIPS, "reliability": AUDIT}

_INSERT = {
    "label_flip": "INSERT INTO label_flip SELECT ?, ?, example_id, unit_id, kind FROM records_now JOIN example "
    "ON example.h = records_now.id::UUID ORDER BY example_id",
    "reliability": "INSERT INTO reliability SELECT ?, ?, example_id, r.method, epoch, model, r.margin, loss, "
    "kept, selected_by, rank, times_kept, weight, reason, evidence FROM records_now r JOIN example "
    "ON example.h = r.id::UUID ORDER BY example_id, epoch NULLS LAST, model",
}

# Each unit of the version with the unit it was first seen as.
_ROOTS = """
WITH RECURSIVE root AS (
    SELECT unit_id, unit_id AS root_id FROM unit WHERE parent_unit_id IS NULL
    UNION ALL
    SELECT u.unit_id, root_id FROM unit u JOIN root ON root.unit_id = u.parent_unit_id
)
"""


def store(
    connection: duckdb.DuckDBPyConnection, run_id: uuid.UUID, step_no: int, records: Mapping[str, pa.Table]
) -> None:
    """Write a step's records. Raises DataError where one names a row that the warehouse does not know."""
    for table, rows in records.items():
        connection.register("records_now", rows.select(TABLES[table].names).cast(TABLES[table]))
        stored = run(connection, _INSERT[table], [run_id, step_no])[0][0]
        connection.unregister("records_now")
        if stored != rows.num_rows:
            raise DataError(
                f"step {step_no} told {rows.num_rows} rows of {table}, the warehouse knows {stored} of them"
            )


def flipped(connection: duckdb.DuckDBPyConnection, version_id: int) -> dict[str, bool] | None:
    """Whether the label of each example (hex id) of the version was turned around on the way to it.

    None where no noise was injected on that way, so that nobody mistakes "unknown" for "clean".
    """
    runs = [run_id for _, run_id in data_line(connection, version_id)]
    query = (
        f"{_ROOTS}, flips AS (SELECT root_id, count(*) % 2 = 1 AS odd FROM label_flip JOIN root USING (unit_id) "
        "WHERE list_contains(?, run_id) GROUP BY root_id) "
        f"SELECT replace(e.h::VARCHAR, '-', ''), coalesce(odd, false) FROM {members(connection, version_id)} "
        "JOIN example e USING (example_id) JOIN root USING (unit_id) LEFT JOIN flips USING (root_id)"
    )
    injected = run(connection, "SELECT 1 FROM label_flip WHERE list_contains(?, run_id) LIMIT 1", [runs])
    return dict(run(connection, query, [runs])) if injected else None


def data_line(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[tuple[int, uuid.UUID]]:
    """(version, run that made it) from the version back to the file: the way its rows took.

    Not the line of parents: a version's first parent is what its dataset held before, not what it was made of.
    """
    query = (
        "SELECT v.version_id, v.run_id, i.version_id FROM version v LEFT JOIN run_io i "
        "ON i.run_id = v.run_id AND direction = 'in'"
    )
    result = {version: (run_id, inputs) for version, run_id, inputs in run(connection, query)}
    line: list[tuple[int, uuid.UUID]] = []
    current: int | None = version_id
    while current is not None:
        run_id, inputs = result[current]
        if run_id is not None:
            line.append((current, run_id))
        current = inputs
    return line


def judge(connection: duckdb.DuckDBPyConnection, version_id: int) -> dict[str, object] | None:
    """How well the steps after the last noise injection told flipped rows from right ones; None where there was none.

    `rows` and `flipped` are of the noisy version. `kept_precision` is the share of right rows among the kept,
    `dropped_precision` that of flipped rows among the dropped, `dropped_recall` that of the flipped that were dropped;
    None where the denominator is zero.
    """
    truth = flipped(connection, version_id)
    if truth is None:
        return None
    inputs = flipped(connection, _last_noisy(connection, version_id)) or {}
    n_kept, n_kept_flipped, n_flipped = len(truth), sum(truth.values()), sum(inputs.values())
    n_dropped, n_dropped_flipped = len(inputs) - n_kept, n_flipped - n_kept_flipped
    return {
        "rows": len(inputs),
        "flipped": n_flipped,
        "kept": n_kept,
        "kept_flipped": n_kept_flipped,
        "dropped": n_dropped,
        "kept_precision": _share(n_kept - n_kept_flipped, n_kept),
        "dropped_precision": _share(n_dropped_flipped, n_dropped),
        "dropped_recall": _share(n_dropped_flipped, n_flipped),
    }


def _last_noisy(connection: duckdb.DuckDBPyConnection, version_id: int) -> int:
    noisy = {run_id for (run_id,) in run(connection, "SELECT DISTINCT run_id FROM label_flip")}
    return next(version for version, run_id in data_line(connection, version_id) if run_id in noisy)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def answers_since(
    connection: duckdb.DuckDBPyConnection, requests: Mapping[str, datetime]
) -> dict[str, list[tuple[int, int]]]:
    """Ranks of both responses by people who judged each unit (hex) after it was asked about; the last of each rater."""
    rows = run(
        connection,
        "SELECT replace(u.h::VARCHAR, '-', ''), rater_id, j.ranks, j.time FROM judgment j JOIN unit u USING (unit_id) "
        "JOIN rater USING (rater_id) WHERE list_contains(?, replace(u.h::VARCHAR, '-', '')) AND verdict = 'ok' "
        "AND rater.kind = 'human' AND len(j.ranks) = 2 AND j.time IS NOT NULL AND event_id NOT IN "
        "(SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL) ORDER BY j.time, event_id",
        [list(requests)],
    )
    last: dict[str, dict[int, tuple[int, int]]] = {}
    for unit, rater, ranks, when in rows:
        if when > requests[unit] and None not in ranks:
            last.setdefault(unit, {})[rater] = (ranks[0], ranks[1])
    return {unit: list(by_rater.values()) for unit, by_rater in last.items()}
