"""Recording a recipe's run: the new version and everything that was kept, dropped and measured, in one transaction."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from data_pipelines.recipes.runner import StepRun
from data_pipelines.scopes import Pieces
from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.errors import DataError
from rmkit.types import DatasetVersion
from rmkit.user import user_name
from warehouse.lineage import reliability_audit
from warehouse.lineage.runs import finish_run, start_run
from warehouse.sql import registered, run
from warehouse.store import open_warehouse, transaction
from warehouse.versions.versions import commit, get, resolve
from warehouse.write.load import store_examples
from warehouse.write.rewrite import OTHER_PARENTS, PARENT_ORDER


def record(
    name: str,
    recipe: dict[str, Any],
    cleaned: Pieces,
    *,
    done: Sequence[StepRun],
    version_id: int,
    out: str | None,
    kind: str = "recipe",
) -> dict[str, object]:
    """Commit the kept rows and the run's records; what the command prints.

    `cleaned` names by `id` the example that each row comes from. Where the same recipe led from the same version
    to the same version before, that run is named and nothing written.
    """
    with open_warehouse() as connection, transaction(connection):
        source = get(connection, version_id)
        newest = run(connection, "SELECT max(version_id) FROM version")[0][0]
        run_id = start_run(connection, kind, name, recipe | {"data": source.digest})
        rows = store_examples(connection, _stored(connection, cleaned), run_id=run_id)
        version = commit(
            connection,
            out or source.name,
            rows,
            message=f"{kind} {name} on {source.ref}",
            author=user_name(),
            parents=[version_id],
            recipe=json.dumps(recipe, sort_keys=True),
            stats=json.dumps(_stats(cleaned, done)),
            run_id=run_id,
        )
        result = resolve(connection, version.ref)
        earlier = _earlier(connection, run_id, result)
        if earlier is None:
            _store_records(connection, run_id, done, version_id, result)
            finish_run(connection, run_id, "done")
        else:
            run(connection, "DELETE FROM run WHERE run_id = ?", [run_id])
    return _result(name, source, version, done) | {"run": str(earlier or run_id), "changed": result > newest}


def _stored(connection: duckdb.DuckDBPyConnection, cleaned: Pieces) -> Iterator[pa.RecordBatch]:
    """The kept rows as store_examples wants them, with `unit` as it was before: the parent where text changed."""
    for piece in cleaned:
        for rows in piece.iter_slices(_ROWS):
            with registered(connection, "kept_now", rows.select("id").to_arrow(compat_level=pl.CompatLevel.oldest())):
                units = pl.DataFrame(pl.from_arrow(connection.sql(_UNITS).to_arrow_table()))
            restored = rows.drop("unit").join(units, on="id", how="left", maintain_order="left")
            schema = EXAMPLE_SCHEMA.append(PARENT_ORDER)
            if OTHER_PARENTS.name in rows.columns:
                schema = schema.append(OTHER_PARENTS)
            table = restored.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
            yield from table.combine_chunks().to_batches()


_ROWS = 8192  # looked up and stored at once
_UNITS = """
SELECT DISTINCT k.id, replace(u.h::VARCHAR, '-', '') AS unit FROM kept_now k JOIN example e ON e.h = k.id::UUID
JOIN unit u USING (unit_id)
"""


def _store_records(
    connection: duckdb.DuckDBPyConnection, run_id: uuid.UUID, done: Sequence[StepRun], inputs: int, result: int
) -> None:
    run(connection, "INSERT INTO run_io VALUES (?, 'in', ?), (?, 'out', ?)", [run_id, inputs, run_id, result])
    for number, step in enumerate(done, 1):
        run(
            connection,
            "INSERT INTO step_result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                run_id,
                number,
                step.name,
                json.dumps(step.config, sort_keys=True),
                step.n_in,
                step.n_kept,
                len(step.dropped),
                step.wall_s,
                json.dumps(step.facts),
            ],
        )
        _store_drops(connection, run_id, number, step.dropped)
        _store_skills(connection, run_id, step)
        records = {name: rows.to_arrow(compat_level=pl.CompatLevel.oldest()) for name, rows in step.records.items()}
        reliability_audit.store(connection, run_id, number, records)


def _store_drops(connection: duckdb.DuckDBPyConnection, run_id: uuid.UUID, number: int, dropped: pl.DataFrame) -> None:
    connection.register("dropped_now", dropped.to_arrow(compat_level=pl.CompatLevel.oldest()))
    sql = (
        "INSERT INTO step_drop SELECT ?, ?, example_id, reason, evidence "
        "FROM dropped_now JOIN example ON example.h = dropped_now.id::UUID ORDER BY example_id"
    )
    stored = run(connection, sql, [run_id, number])[0][0]
    connection.unregister("dropped_now")
    if stored != len(dropped):
        raise DataError(f"step {number} dropped {len(dropped)} rows but the warehouse knows {stored} of them")


def _store_skills(connection: duckdb.DuckDBPyConnection, run_id: uuid.UUID, step: StepRun) -> None:
    """Rater skills of an aggregation; a rater that the warehouse does not know (votes made in a test) is left out."""
    for skill in step.facts.get("raters", []) if step.name == "aggregate" else []:
        run(
            connection,
            "INSERT INTO rater_skill SELECT rater_id, ?, ?, 'all', ?, ?, NULL, ? FROM rater WHERE name = ?",
            [run_id, step.facts["method"], skill["accuracy"], skill["bias_first"], skill["n"], skill["rater"]],
        )


def _earlier(connection: duckdb.DuckDBPyConnection, run_id: uuid.UUID, result: int) -> uuid.UUID | None:
    """A finished run of the same recipe on the same data that ended in the same version."""
    sql = (
        "SELECT old.run_id FROM run old JOIN run_io USING (run_id) JOIN run new ON new.run_id = $1 "
        "WHERE direction = 'out' AND version_id = $2 AND old.status = 'done' AND old.kind = new.kind "
        "AND old.config = new.config ORDER BY old.started_at LIMIT 1"
    )
    rows = connection.execute(sql, [run_id, result]).fetchall()
    return rows[0][0] if rows else None


def _stats(cleaned: Pieces, done: Sequence[StepRun]) -> dict[str, object]:
    splits = pl.concat([piece.select("split") for piece in cleaned]).group_by("split").len().sort("split").iter_rows()
    return {"rows_by_split": {str(split): n for split, n in splits}, "dropped": {s.name: len(s.dropped) for s in done}}


def _result(name: str, source: DatasetVersion, version: DatasetVersion, done: Sequence[StepRun]) -> dict[str, object]:
    steps = [
        {
            "step": step.name,
            "config": step.config,
            "n_in": step.n_in,
            "n_kept": step.n_kept,
            "n_dropped": len(step.dropped),
            "reasons": dict(step.dropped["reason"].value_counts(sort=True).iter_rows()),
            "wall_s": step.wall_s,
            "reused": step.reused,
            "facts": step.facts,
        }
        for step in done
    ]
    return {
        "recipe": name,
        "data": source.ref,
        "dataset": version.name,
        "version": version.ref,
        "digest": version.digest,
        "rows_in": source.n_rows,
        "rows_out": version.n_rows,
        "steps": steps,
    }
