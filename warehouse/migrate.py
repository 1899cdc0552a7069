"""Numbered SQL migrations, each applied once, in one transaction, and recorded with its checksum."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import duckdb

from rmkit.errors import StoreError

_SCHEMA = """
    SELECT 'table', table_name, sql FROM duckdb_tables() WHERE NOT temporary
    UNION ALL SELECT 'view', view_name, sql FROM duckdb_views() WHERE NOT internal
    UNION ALL SELECT 'index', index_name, sql FROM duckdb_indexes()
    UNION ALL SELECT 'sequence', sequence_name, sql FROM duckdb_sequences()
    UNION ALL SELECT 'macro', function_name, macro_definition FROM duckdb_functions() WHERE NOT internal
    UNION ALL SELECT 'type', type_name, type_category FROM duckdb_types() WHERE NOT internal
"""


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The shipped migrations in order. File names are NNNN_what.sql."""
    files = sorted(resources.files("warehouse").joinpath("migrations").iterdir(), key=lambda file: file.name)
    return [Migration(int(f.name[:4]), f.name, f.read_text()) for f in files if f.name.endswith(".sql")]


def migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """Apply what is missing and return the names applied. Raises StoreError as `check_version` does."""
    applied = check_version(connection, path)
    missing = [migration for migration in migrations() if migration.number > applied]
    if not missing:
        return []
    connection.execute("BEGIN TRANSACTION")
    _apply(connection, missing)
    connection.execute("COMMIT")
    return [migration.name for migration in missing]


def _apply(connection: duckdb.DuckDBPyConnection, missing: Sequence[Migration]) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration "
        "(number INTEGER PRIMARY KEY, name VARCHAR, sha256 VARCHAR, applied_at TIMESTAMPTZ)"
    )
    for migration in missing:
        connection.execute(migration.sql)
        connection.execute(
            "INSERT INTO schema_migration VALUES (?, ?, ?, now())",
            [migration.number, migration.name, migration.sha256],
        )


def check_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Raise StoreError where the file holds anything but what the migrations made.

    A view in a table's place reads other files, a macro named like a function changes what every query computes.
    """
    with contextlib.closing(duckdb.connect(":memory:")) as fresh:
        fresh.execute("BEGIN TRANSACTION")
        _apply(fresh, migrations()[: check_version(connection, path)])
        known, objects = (set(one.execute(_SCHEMA).fetchall()) for one in (fresh, connection))
    if changed := {f"{kind} {name}" for kind, name, _ in known ^ objects}:
        raise StoreError(
            f"{path} is no warehouse as rmkit writes it: it has, lacks or has changed {', '.join(sorted(changed))}; "
            "do not use it, take another backup"
        )


def check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The number of the last migration applied (0 for a new file).

    Raises StoreError when the file comes from a newer rmkit, from a changed migration, or is no warehouse at all.
    """
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "schema_migration" not in tables:
        if tables:
            raise StoreError(
                f"{path} is a DuckDB file but not an rmkit warehouse (tables: {', '.join(sorted(tables))})"
            )
        return 0
    known = {migration.number: migration for migration in migrations()}
    rows = connection.execute("SELECT number, name, sha256 FROM schema_migration ORDER BY number").fetchall()
    for number, name, sha256 in rows:
        if number not in known:
            raise StoreError(f"{path} was written by a newer rmkit (migration {name}); upgrade rmkit to open it")
        if known[number].sha256 != sha256:
            raise StoreError(
                f"{path}: migration {name} differs from this rmkit's; the file is from a development build"
            )
    return int(rows[-1][0]) if rows else 0
