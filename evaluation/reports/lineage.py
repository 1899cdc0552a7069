"""What the warehouse knows about the making of a version: its sources, rejected rows, steps, drops and splits."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from warehouse.versions import versions


def made_from(connection: duckdb.DuckDBPyConnection, version_id: int) -> dict[str, Any]:
    """Sources, rejects, steps (with reasons and facts) and splits of a version, JSON-ready.

    A version that no recipe made has no steps. Sources are those of its rows, benchmarks of the warehouse beside them.
    """
    run_id = _one(connection, "SELECT run_id FROM version WHERE version_id = ?", version_id)["run_id"]
    sources = _sources(connection, version_id)
    return {
        "version": versions.get(connection, version_id),
        "sources": sources,
        "rejects": _rejects(connection, [source["source_id"] for source in sources]),
        "steps": _steps(connection, run_id),
        "splits": _splits(connection, version_id),
        "family_overlap": _family_overlap(connection, version_id),
        "run": _one(connection, "SELECT * FROM run WHERE run_id = ?", run_id) if run_id else {},
    }


def _rows(connection: duckdb.DuckDBPyConnection, query: str, *values: Any) -> list[dict[str, Any]]:
    table = connection.execute(query, list(values))
    names = [column[0] for column in table.description or ()]
    return [dict(zip(names, row, strict=True)) for row in table.fetchall()]


def _one(connection: duckdb.DuckDBPyConnection, query: str, *values: Any) -> dict[str, Any]:
    return next(iter(_rows(connection, query, *values)), {})


def _sources(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[dict[str, Any]]:
    """Sources of the version's rows, then the benchmarks that its rows were checked against."""
    return _rows(
        connection,
        f"""WITH used AS (
            SELECT DISTINCT source_id FROM ({versions.members_sql(connection, version_id)})
            JOIN example USING (example_id) JOIN unit_source USING (unit_id))
        SELECT *, (SELECT count(DISTINCT unit_id) FROM unit_source us JOIN unit USING (unit_id)
            WHERE us.source_id = source.source_id AND parent_unit_id IS NULL) AS n_distinct
        FROM source WHERE source_id IN (FROM used) OR is_benchmark ORDER BY is_benchmark, source_id""",
    )


def _rejects(connection: duckdb.DuckDBPyConnection, source_ids: list[int]) -> list[dict[str, object]]:
    """Rejected rows by reason, commonest first, each with its first line and how that begins."""
    return _rows(
        connection,
        """SELECT reason, count(*) AS n, min(line) AS line, arg_min(excerpt, line) AS excerpt
        FROM reject WHERE list_contains(?, source_id) GROUP BY reason ORDER BY n DESC, line""",
        source_ids,
    )


def _steps(connection: duckdb.DuckDBPyConnection, run_id: Any) -> list[dict[str, object]]:
    reasons = _rows(
        connection,
        "SELECT step_no, reason, count(*) AS n FROM step_drop WHERE run_id = ? GROUP BY ALL ORDER BY n DESC, reason",
        run_id,
    )
    steps = _rows(connection, "SELECT * FROM step_result WHERE run_id = ? ORDER BY step_no", run_id)
    return [
        step
        | {
            "facts": json.loads(step["facts"] or "{}"),
            "reasons": [reason for reason in reasons if reason["step_no"] == step["step_no"]],
        }
        for step in steps
    ]


def _splits(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[dict[str, object]]:
    return _rows(
        connection,
        f"""SELECT coalesce(m.split, 'none') AS split, count(*) AS n, count(DISTINCT p.family_id) AS families
        FROM ({versions.members_sql(connection, version_id)}) m
        JOIN example USING (example_id) JOIN unit USING (unit_id) JOIN prompt p USING (prompt_id)
        GROUP BY ALL ORDER BY n DESC""",
    )


def _family_overlap(connection: duckdb.DuckDBPyConnection, version_id: int) -> int:
    """Prompt families that lie in more than one split: a leak where it is not 0."""
    result = _one(
        connection,
        f"""SELECT count(*) AS n FROM (
            SELECT p.family_id FROM ({versions.members_sql(connection, version_id)}) m
            JOIN example USING (example_id) JOIN unit USING (unit_id) JOIN prompt p USING (prompt_id)
            GROUP BY p.family_id HAVING count(DISTINCT m.split) > 1)""",
    )
    return int(result["n"])
