"""Loading one file's units as one transaction: a kill leaves all of it or nothing.

Loading the same file (bytes, format, dataset) again changes nothing. A changed revision becomes the next version of the
dataset, holding exactly the new file's rows; what both revisions share is stored once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import duckdb
import pyarrow as pa

from rmkit.errors import DataError
from rmkit.types import DatasetVersion
from warehouse.lineage.runs import recorded_run
from warehouse.sql import run, setting
from warehouse.store import transaction
from warehouse.versions import versions
from warehouse.write.derive import derive_examples
from warehouse.write.judgments import VOTES, store_judgments
from warehouse.write.newest import repeats_sql
from warehouse.write.rewrite import store_examples
from warehouse.write.stage import ERASED, chunks, refuse_erased, staged, store_origins, store_units

__all__ = ["LabelScale", "LoadReport", "SourceInfo", "find_load", "load_units", "store_examples"]

MEMORY_LIMIT = "2GB"  # for DuckDB; a chunk on its way in and the importer come on top


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScale:
    """What the numbers of a source mean: of one aspect of its ratings, or (`aspect` None) of its strengths.

    `low` and `high` are inclusive, None where open; `levels` names the steps from low to high.
    """

    aspect: str | None = None
    name: str | None = None
    low: float | None = None
    high: float | None = None
    levels: Sequence[str] | None = None
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """Where rows come from; "unknown" is an honest value. `format` names the importer that reads the file."""

    name: str
    path: str
    format: str
    file_sha256: str
    url: str | None = None
    revision: str | None = None
    license: str = "unknown"
    license_notes: str | None = None
    is_benchmark: bool = False
    text_origin: str = "unknown"
    pii: str = "unknown"
    scales: Sequence[LabelScale] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What one load did. n_lines = n_accepted + n_rejected; `n_duplicate_units` are repeats within the file.

    A line is accepted if any unit of it was stored. `n_units` counts distinct units, `n_new_units` those that the
    warehouse had not seen before. `version` is None where the file holds no usable row. `n_replaced_judgments` do not
    count because the same rater answered anew later; `n_repeated_judgments` are second answers of one rater that count
    beside the first, since no time says which is newer.
    """

    source_id: int
    dataset: str
    version: DatasetVersion | None
    n_lines: int
    n_accepted: int
    n_rejected: int
    n_units: int
    n_new_units: int
    n_duplicate_units: int
    n_replaced_judgments: int
    n_repeated_judgments: int
    already_loaded: bool


def load_units(
    connection: duckdb.DuckDBPyConnection,
    source: SourceInfo,
    batches: Iterable[pa.RecordBatch],
    *,
    rejects: Callable[[], pa.Table],
    dataset: str,
    author: str,
    n_lines: Callable[[], int],
) -> LoadReport:
    """Store the units (UNIT_SCHEMA batches) and their judgments, and commit them as a version of `dataset`.

    `rejects` (REJECT_SCHEMA) and `n_lines` are asked after the last batch. Memory does not grow with the text.
    Raises DataError where lines do not add up or a unit breaks UNIT_SCHEMA's rules; nothing is stored then.
    """
    if known := find_load(connection, source, dataset):
        return known
    with (
        setting(connection, "memory_limit", MEMORY_LIMIT),
        transaction(connection),
        recorded_run(connection, "ingest", dataset, asdict(source)) as run_id,
    ):
        _forget_failed(connection, source, dataset)
        source_id = _new_source(connection, source, run_id)
        n_rows, n_new_units = _store_batches(connection, source, batches, source_id=source_id, run_id=run_id)
        _store_rejects(connection, source_id, rejects())
        _close_source(connection, source_id, n_lines())
        version = None
        if n_rows:
            rows = derive_examples(connection, source_id)
            version = versions.commit(
                connection, dataset, rows, message=f"ingest {source.path}", author=author, run_id=run_id
            )
        return _report(connection, source_id, dataset, version, n_new_units=n_new_units)


def _store_batches(
    connection: duckdb.DuckDBPyConnection,
    source: SourceInfo,
    batches: Iterable[pa.RecordBatch],
    *,
    source_id: int,
    run_id: uuid.UUID,
) -> tuple[int, int]:
    """(units stored, repeats included; new units)."""
    erasures = bool(run(connection, "SELECT 1 FROM tombstone LIMIT 1"))
    run(connection, VOTES)
    run(connection, "CREATE OR REPLACE TEMP TABLE refused (line BIGINT, source_row VARCHAR)")
    n_read = n_new_units = 0
    for chunk in chunks(batches):
        with staged(connection, chunk, first=n_read):
            if erasures:
                refuse_erased(connection)
            n_new_units += store_units(connection)
        store_origins(connection, source_id)
        store_judgments(connection, source_id, source.name, run_id)
        n_read += len(chunk)
    return n_read - int(run(connection, "SELECT count(*) FROM refused")[0][0]), n_new_units


def find_load(connection: duckdb.DuckDBPyConnection, source: SourceInfo, dataset: str) -> LoadReport | None:
    """The report of an earlier load of the same bytes in the same format into the same dataset, None if there is none.
    One that gave no row does not count: a newer importer may read it.

    Importers ask before they read the file at all.
    """
    rows = run(
        connection,
        "SELECT source_id, source.run_id FROM source JOIN run USING (run_id) "
        "WHERE file_sha256 = ? AND format = ? AND run.name = ? AND n_accepted > 0 ORDER BY source_id LIMIT 1",
        [source.file_sha256, source.format, dataset],
    )
    if not rows:
        return None
    ((source_id, run_id),) = rows
    return _report(connection, source_id, dataset, _version_of(connection, dataset, run_id), n_new_units=0, again=True)


def _version_of(connection: duckdb.DuckDBPyConnection, dataset: str, run_id: uuid.UUID) -> DatasetVersion | None:
    """The version that a load made, or the dataset's head where its rows were the head's already."""
    rows = run(connection, "SELECT version_id FROM version WHERE run_id = ?", [run_id])
    if rows:
        return versions.get(connection, rows[0][0])
    if run(connection, "SELECT 1 FROM dataset WHERE name = ?", [dataset]):
        return versions.get(connection, versions.resolve(connection, dataset))
    return None


def _forget_failed(connection: duckdb.DuckDBPyConnection, source: SourceInfo, dataset: str) -> None:
    """Remove what an earlier load of the same bytes left that gave no row: its rejects are about to come again."""
    failed = run(
        connection,
        "SELECT source_id FROM source JOIN run USING (run_id) "
        "WHERE file_sha256 = ? AND format = ? AND run.name = ? AND n_accepted = 0",
        [source.file_sha256, source.format, dataset],
    )
    for (source_id,) in failed:
        for table in ("reject", "label_scale", "source"):
            run(connection, f"DELETE FROM {table} WHERE source_id = ?", [source_id])


def _new_source(connection: duckdb.DuckDBPyConnection, source: SourceInfo, run_id: uuid.UUID) -> int:
    sql = (
        "INSERT INTO source BY NAME SELECT (SELECT coalesce(max(source_id), 0) + 1 FROM source) AS source_id, "
        "unnest(?::STRUCT(name VARCHAR, path VARCHAR, format VARCHAR, file_sha256 VARCHAR, url VARCHAR, "
        "revision VARCHAR, license VARCHAR, license_notes VARCHAR, is_benchmark BOOLEAN, text_origin VARCHAR, "
        "pii VARCHAR)), 0 AS n_lines, 0 AS n_accepted, 0 AS n_rejected, ?::UUID AS run_id, now() AS fetched_at "
        "RETURNING source_id"
    )
    values = asdict(source)
    scales = values.pop("scales")
    source_id = int(run(connection, sql, [values, run_id])[0][0])
    for scale in scales:
        columns = [scale[name] for name in ("aspect", "name", "low", "high", "levels", "higher_is_better")]
        run(connection, "INSERT INTO label_scale VALUES (?, ?, ?, ?, ?, ?, ?)", [source_id, *columns])
    return source_id


def _store_rejects(connection: duckdb.DuckDBPyConnection, source_id: int, rejects: pa.Table) -> None:
    connection.register("rejects", rejects)
    run(connection, "INSERT INTO reject SELECT ?, line, source_row, reason, excerpt FROM rejects", [source_id])
    connection.unregister("rejects")
    run(connection, "INSERT INTO reject SELECT ?, line, source_row, ?, NULL FROM refused", [source_id, ERASED])


def _close_source(connection: duckdb.DuckDBPyConnection, source_id: int, n_lines: int) -> None:
    """Record the counts of lines. Raises DataError where a line is neither stored nor rejected."""
    ((n_accepted, n_rejected),) = run(
        connection,
        "SELECT (SELECT count(DISTINCT line) FROM unit_source WHERE source_id = $1), (SELECT count(DISTINCT line) "
        "FROM reject WHERE source_id = $1 AND line NOT IN (SELECT line FROM unit_source WHERE source_id = $1))",
        [source_id],
    )
    if n_accepted + n_rejected != n_lines:
        raise DataError(
            f"the importer lost lines: {n_lines} read, {n_accepted} stored, {n_rejected} rejected; nothing was loaded"
        )
    sql = "UPDATE source SET n_lines = ?, n_accepted = ?, n_rejected = ? WHERE source_id = ?"
    run(connection, sql, [n_lines, n_accepted, n_rejected, source_id])


def _report(
    connection: duckdb.DuckDBPyConnection,
    source_id: int,
    dataset: str,
    version: DatasetVersion | None,
    *,
    n_new_units: int,
    again: bool = False,
) -> LoadReport:
    ((n_lines, n_accepted, n_rejected, n_rows, n_units),) = run(
        connection,
        "WITH own AS (SELECT us.unit_id FROM unit_source us JOIN unit u USING (unit_id) WHERE source_id = $1 "
        "AND NOT EXISTS (FROM unit_source p "  # a unit that a step rewrote repeats its parent's origins
        "WHERE p.unit_id = u.parent_unit_id AND p.source_id = us.source_id AND p.line = us.line)) "
        "SELECT n_lines, n_accepted, n_rejected, (SELECT count(*) FROM own), (SELECT count(DISTINCT unit_id) FROM own) "
        "FROM source WHERE source_id = $1",
        [source_id],
    )
    own = (
        "(FROM judgment WHERE source_id = $1 UNION ALL SELECT j.* FROM judgment j JOIN judgment_source s "
        "ON s.event_id = j.event_id AND s.source_id = $1)"
    )
    ((n_replaced, n_repeated),) = run(connection, repeats_sql(own), [source_id])
    return LoadReport(
        source_id=source_id,
        dataset=dataset,
        version=version,
        n_lines=n_lines,
        n_accepted=n_accepted,
        n_rejected=n_rejected,
        n_units=n_units,
        n_new_units=n_new_units,
        n_duplicate_units=n_rows - n_units,
        n_replaced_judgments=n_replaced,
        n_repeated_judgments=n_repeated,
        already_loaded=again,
    )
