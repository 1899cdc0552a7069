"""The history of datasets, as data and as text: versions with what they added and removed, branches, tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from rmkit.cli.display import table
from warehouse.sql import run
from warehouse.versions.versions import dataset_id

_NAMES = ("ref", "number", "digest", "n_rows", "added", "removed", "changed", "message", "author", "created_at")


def all_datasets(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Every dataset with the number of versions and what its latest version holds, by name."""
    rows = run(
        connection,
        """
        SELECT d.name, count(*), max_by(v.n_rows, v.number), max_by(v.digest, v.number), max_by(v.message, v.number),
            max(v.created_at),
            (SELECT coalesce(list(name ORDER BY name), []) FROM branch b WHERE b.dataset_id = d.dataset_id),
            (SELECT coalesce(list(name ORDER BY name), []) FROM tag t WHERE t.dataset_id = d.dataset_id)
        FROM dataset d JOIN version v USING (dataset_id) GROUP BY d.dataset_id, d.name ORDER BY d.name""",
    )
    names = ("name", "versions", "n_rows", "digest", "message", "created_at", "branches", "tags")
    return [dict(zip(names, row, strict=True)) for row in rows]


def one_dataset(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, Any]:
    """Versions (newest first), branches, tags and the moves of tags. Raises VersionError for an unknown dataset."""
    target = dataset_id(connection, name)
    versions = run(
        connection,
        """
        WITH change AS (SELECT version_id, count(*) FILTER (op = 1) AS added, count(*) FILTER (op = -1) AS removed,
            count(*) FILTER (op = 0) AS changed FROM delta GROUP BY version_id)
        SELECT d.name || '@v' || v.number, v.number, v.digest, v.n_rows, coalesce(added, 0), coalesce(removed, 0),
            coalesce(changed, 0), v.message, v.author, v.created_at
        FROM version v JOIN dataset d USING (dataset_id) LEFT JOIN change USING (version_id)
        WHERE dataset_id = ? ORDER BY v.number DESC""",
        [target],
    )
    return {
        "dataset": name,
        "versions": [dict(zip(_NAMES, row, strict=True)) for row in versions],
        "branches": _pointers(connection, "branch", target),
        "tags": _pointers(connection, "tag", target),
        "tag_history": _tag_history(connection, target),
    }


def _pointers(connection: duckdb.DuckDBPyConnection, table: str, target: int) -> dict[str, str]:
    return dict(
        run(
            connection,
            f"SELECT p.name, d.name || '@v' || v.number FROM {table} p JOIN version v USING (version_id) "
            "JOIN dataset d ON d.dataset_id = v.dataset_id WHERE p.dataset_id = ? ORDER BY p.name",
            [target],
        )
    )


def _tag_history(connection: duckdb.DuckDBPyConnection, target: int) -> list[dict[str, object]]:
    rows = run(
        connection,
        'SELECT h.name, v.number, h.actor, h."time" FROM tag_history h LEFT JOIN version v USING (version_id) '
        'WHERE h.dataset_id = ? ORDER BY h."time"',
        [target],
    )
    return [dict(zip(("tag", "number", "actor", "time"), row, strict=True)) for row in rows]


def datasets_text(datasets: Sequence[Mapping[str, Any]]) -> str:
    """What `rmkit datasets` prints."""
    if not datasets:
        return "no datasets yet; bring data in with: rmkit ingest FILE   (or try: rmkit quickstart)"
    columns = ("dataset", "latest", "rows", "digest", "made (UTC)", "branches", "tags", "message")
    rows = []
    for one in datasets:
        latest = (f"v{one['versions']}", one["n_rows"], one["digest"][:8], one["created_at"])
        rows.append((one["name"], *latest, " ".join(one["branches"]), " ".join(one["tags"]) or "-", one["message"]))
    return table(columns, rows)


def dataset_text(result: Mapping[str, Any]) -> str:
    """What `rmkit datasets NAME` prints."""
    pointers = [*result["branches"].items(), *result["tags"].items()]
    rows = []
    for one in result["versions"]:
        changes = f"+{one['added']} -{one['removed']} *{one['changed']}"
        names = " ".join(name for name, ref in pointers if ref == one["ref"])
        commit = (one["author"], one["created_at"], one["message"])
        rows.append((f"v{one['number']}", one["digest"][:8], one["n_rows"], changes, names, *commit))
    columns = (result["dataset"], "digest", "rows", "changes", "branches, tags", "by", "made (UTC)", "message")
    return table(columns, rows)
