"""What a load holds in memory: the chunk being stored and the one being read, not those before."""

from __future__ import annotations

import gc

import duckdb
import pyarrow as pa
import pytest

from warehouse.sql import registered, run


@pytest.mark.slow
def test_a_table_is_let_go_within_its_transaction() -> None:
    rows = 100_000
    with duckdb.connect() as connection:
        run(connection, "BEGIN")
        before = pa.total_allocated_bytes()
        for first in range(0, 5 * rows, rows):
            table = pa.table({"n": range(first, first + rows), "text": pa.array(["x" * 40] * rows)})
            size = table.nbytes
            with registered(connection, "chunk", table):
                total = "SELECT sum(n), count(*) FILTER (text = repeat('x', 40)) FROM chunk"
                assert run(connection, total) == [(sum(range(first, first + rows)), rows)]
            del table
            gc.collect()
            assert pa.total_allocated_bytes() - before < size / 2
        run(connection, "COMMIT")
