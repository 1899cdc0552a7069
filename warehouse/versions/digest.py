"""The digest of a version: SHA-256 over one line per row, sorted,

    HASH <tab> SPLIT <tab> WEIGHT <newline>

where HASH is the example's content hash (32 hex digits), SPLIT is empty where there is none, and WEIGHT is written
with C's `%.17g`. No clock, no id of this warehouse and no file format is inside, so the digest can be recomputed from
an export with a few lines of Python (`digest_rows`), and equal data has equal digests in every warehouse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import duckdb
import pyarrow as pa

from warehouse.sql import registered, scratch


def row_digest(connection: duckdb.DuckDBPyConnection) -> str:
    """The digest of the temp table `next_rows`, computed from a stream: memory does not grow with the version."""
    lines = connection.sql(
        "SELECT replace(h::VARCHAR, '-', '') || chr(9) || coalesce(split, '') || chr(9) || printf('%.17g', weight) "
        "|| chr(10) AS line FROM next_rows ORDER BY h"
    )
    sha256 = hashlib.sha256()
    for batch in lines.to_arrow_reader(100_000):
        sha256.update("".join(batch.column(0).to_pylist()).encode())
    return sha256.hexdigest()


def digest_pieces(pieces: Iterable[pa.Table]) -> str:
    """The digest of tables with the columns id (32 hex digits), split and weight, in any order and with repeats; sorted
    on disk where they are many."""
    with scratch() as connection:
        connection.execute("CREATE TABLE row (h UUID, split VARCHAR, weight DOUBLE)")
        for piece in pieces:
            with registered(connection, "piece", piece.select(["id", "split", "weight"])):
                connection.execute("INSERT INTO row SELECT DISTINCT id::UUID, split, weight FROM piece").fetchall()
        connection.execute("CREATE TABLE next_rows AS SELECT DISTINCT * FROM row").fetchall()
        return row_digest(connection)


def digest_rows(rows: Iterable[tuple[str, str | None, float]]) -> str:
    """The digest of (example hash, split, weight) rows in any order: the same as the warehouse computes."""
    lines = sorted(f"{h}\t{split or ''}\t{weight:.17g}\n" for h, split, weight in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
