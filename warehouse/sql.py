"""Running one statement to its end, settings for a while, and handing Arrow tables to DuckDB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa


def run(connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a statement, so that no unfinished result stays on the connection."""
    return connection.execute(sql, parameters or []).fetchall()


def in_morsels(table: pa.Table) -> pa.Table:
    """The same table in record batches small enough that DuckDB's threads share the scan (they take whole batches)."""
    return pa.Table.from_batches(table.to_batches(max_chunksize=8192), schema=table.schema)


class _Stream:
    """A table that DuckDB scans and that can be let go."""

    def __init__(self, table: pa.Table):
        self.table: pa.Table | None = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        assert self.table is not None, "the table is registered no more"
        return self.table.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        assert self.table is not None, "the table is registered no more"
        return self.table.schema.__arrow_c_schema__()


@contextlib.contextmanager
def registered(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    """An Arrow table as the view `name` for the length of a block.

    What was registered within a transaction DuckDB keeps until that ends, unregistered or not: a load would hold all of
    its chunks. It keeps a stream here, which lets its table go.
    """
    stream = _Stream(in_morsels(table))
    connection.register(name, stream)
    try:
        yield
    finally:
        stream.table = None
        connection.unregister(name)


@contextlib.contextmanager
def setting(connection: duckdb.DuckDBPyConnection, name: str, value: str) -> Iterator[None]:
    """A DuckDB setting for the length of a block; the value before comes back, unless the transaction has failed."""
    (before,) = run(connection, "SELECT current_setting(?)", [name])[0]
    run(connection, f"SET {name} = '{value}'")
    try:
        yield
    finally:
        with contextlib.suppress(duckdb.Error):
            run(connection, f"SET {name} = '{before}'")
