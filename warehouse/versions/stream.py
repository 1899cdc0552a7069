"""Checkout in pieces: the same rows in the same order as `checkout`, in memory that does not grow with the version.

DuckDB sorts the narrow columns, on disk where they are many, and streams them. The texts that the version needs go into
a file once, in the order in which the warehouse has them, and each piece takes its own from there.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rmkit.data.text_file import TextFile
from warehouse.sql import run, setting
from warehouse.versions.checkout import FEW, Votes, example_fields, gather_texts, named_generators, narrow_sql
from warehouse.versions.versions import get, members

PIECE_ROWS = 16_384
MEMORY_LIMIT = "1GB"  # for DuckDB; a piece and its texts come on top
VOTED_ROWS = 250_000  # whose lists of votes DuckDB makes at once; it cannot put them on disk


def stream(
    connection: duckdb.DuckDBPyConnection,
    version_id: int,
    *,
    split: str | None = None,
    votes: Votes = False,
    columns: Sequence[str] | None = None,
    among: str | None = None,
    rows: int = PIECE_ROWS,
) -> Iterator[pa.Table]:
    """What `checkout` gives, in tables of `rows` rows (the last one has the rest; none where there is no row), of the
    examples that the temp table `among` has.

    The connection is busy until the last one was taken. Raises as `checkout`.
    """
    fields = example_fields(columns, votes)
    names = [field.name for field in fields]
    query = narrow_sql(connection, version_id, names, full=votes == "full", among=among, ranged=bool(votes))
    ranges = list(_hash_ranges(get(connection, version_id).n_rows)) if votes else [{}]
    models = run(connection, "SELECT gen_id, model FROM generator")
    with ExitStack() as files, setting(connection, "memory_limit", MEMORY_LIMIT):
        texts = {
            name: _texts(connection, files, table, key, column, version_id)
            for name, table, key, column in (
                ("prompt", "prompt", "prompt_id", "prompt_id"),
                ("responses", "response", "resp_id", "unnest(resp_ids)"),
            )
            if name in names
        }
        readers = (connection.sql(query, params={"split": split, **one}).to_arrow_reader(rows) for one in ranges)
        for narrow in pieces(itertools.chain.from_iterable(readers), rows):
            parts = {name: narrow[name] for name in names if name in narrow.column_names}
            for name, (file, place) in texts.items():
                ids = narrow["prompt_id" if name == "prompt" else "resp_ids"]
                parts[name] = gather_texts(file.array(), place, ids)
                file.release()
            if "generators" in parts:
                parts["generators"] = named_generators(models, parts["generators"])
            yield pa.table([parts[field.name].cast(field.type) for field in fields], schema=pa.schema(fields))


def _hash_ranges(n_rows: int) -> Iterator[dict[str, str]]:
    """Ranges of hashes, in order, that hold about VOTED_ROWS of so many rows: hashes are spread evenly."""
    n = max(1, -(-n_rows // VOTED_ROWS))
    ends = [number * 2**128 // n for number in range(n + 1)]
    for low, high in itertools.pairwise(ends):
        yield {"low": str(uuid.UUID(int=low)), "high": str(uuid.UUID(int=high - 1))}


def _texts(
    connection: duckdb.DuckDBPyConnection, files: ExitStack, table: str, key: str, column: str, version_id: int
) -> tuple[TextFile, npt.NDArray[np.int64]]:
    """The texts of a table that the version needs, and for each id its place among them."""
    held = f"{members(connection, version_id)} JOIN example USING (example_id) JOIN unit USING (unit_id)"
    used = f"SELECT {column} FROM {held}"
    [(n_used, n_all)] = run(connection, f"SELECT (SELECT count(*) FROM ({used})), (SELECT count(*) FROM {table})")
    where = f"WHERE {key} IN ({used})" if n_used * FEW < n_all else ""
    file = files.enter_context(TextFile())
    keys = [np.zeros(0, np.int64)]
    for batch in connection.sql(f"SELECT {key}, messages FROM {table} {where}").to_arrow_reader(PIECE_ROWS):
        file.append(batch.column(1))
        keys.append(batch.column(0).to_numpy(zero_copy_only=False).astype(np.int64))
    file.finish()
    ids = np.concatenate(keys)
    place = np.zeros(int(ids.max(initial=-1)) + 1, np.int64)
    place[ids] = np.arange(len(ids))
    return file, place


def pieces(reader: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The batches put together into tables of exactly `rows` rows, and the rest."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in reader:
        held.append(batch)
        n_held += len(batch)
        while n_held >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows).combine_chunks()
            held, n_held = table.slice(rows).to_batches(), n_held - rows
    if n_held:
        yield pa.Table.from_batches(held).combine_chunks()
