"""Running one statement to its end, settings for a while, and handing Arrow tables to DuckDB."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rmkit.data.text_file import TextFile

SORT_BYTES = 256 << 20  # of texts sorted in memory
SORT_ROWS = 65_536  # handed over at once


def run(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | dict[str, Any] | None = None
) -> list[tuple[Any, ...]]:
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


@contextlib.contextmanager
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own for the length of a block, on disk where it is large."""
    with contextlib.closing(duckdb.connect()) as result, tempfile.TemporaryDirectory(prefix="rmkit-sort-") as folder:
        result.execute(f"SET memory_limit = '1GB'; SET temp_directory = '{folder}'").fetchall()
        yield result


def sorted_places(texts: TextFile, at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order (positions in `at`) that sorts the texts at these places by their bytes; large ones on disk."""
    if texts.n_bytes[at].sum() < SORT_BYTES:
        order = np.asarray(pc.array_sort_indices(texts.array().take(pa.array(at))), np.int64)
        texts.release()
        return order
    with scratch() as connection:
        connection.execute("CREATE TABLE line (n BIGINT, text VARCHAR)")
        for start in range(0, len(at), SORT_ROWS):
            some = texts.array().take(pa.array(at[start : start + SORT_ROWS]))
            texts.release()
            with registered(connection, "piece", pa.table({"n": np.arange(start, start + len(some)), "text": some})):
                connection.execute("INSERT INTO line SELECT n, text FROM piece")
        return connection.execute("SELECT n FROM line ORDER BY text").fetchnumpy()["n"].astype(np.int64)
