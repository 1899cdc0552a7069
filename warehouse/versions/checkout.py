"""Checkout: the rows of a version as one Arrow table (see `dataset` for frames and Hugging Face datasets).

DuckDB joins and sorts only the narrow columns; the texts are then gathered by position, batch by batch. That is faster
than carrying kilobyte strings through hash joins and a sort, and it serves lists of any length in the same way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.errors import UsageError
from warehouse.out.licenses import restriction_sql
from warehouse.versions.versions import held_sources, members
from warehouse.write.votes import FULL_VOTE_STRUCT, VOTE_STRUCT, votes_sql

Votes = bool | Literal["full"]

VOTES = pa.field("votes", pa.list_(VOTE_STRUCT))
FULL_VOTES = pa.field("votes", pa.list_(FULL_VOTE_STRUCT))

_BATCH_ROWS = 8192  # texts of one batch must stay below the 2 GiB that 32-bit offsets can address
FEW = 4  # a version that needs less than one in four of the texts does not read them all


def checkout(
    connection: duckdb.DuckDBPyConnection,
    version_id: int,
    *,
    split: str | None = None,
    votes: Votes = False,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The rows of a version (or of one split) in EXAMPLE_SCHEMA, or the named columns of it, ordered by example hash.

    Rows whose text was erased are left out; `erased(table)` counts them. Of several sources of one unit the first that
    the version's datasets hold gives source, subset, generators and meta, and the most restrictive of all gives the
    license. `votes=True` adds a column of the unit's valid judgments that count in these datasets (see votes), oldest
    first, empty where there is none; "full" adds to them edits, reasons and what else they say.

    Raises VersionError for an unknown version, UsageError for an unknown column.
    """
    fields = example_fields(columns, votes)
    query = narrow_sql(connection, version_id, [field.name for field in fields], full=votes == "full")
    rows = connection.sql(query, params={"split": split}).to_arrow_table()
    n_members = _count(connection, version_id, split)
    parts = {field.name: rows[field.name] for field in fields if field.name in rows.column_names}
    if "prompt" in {field.name for field in fields}:
        parts["prompt"] = _gather(connection, "prompt", "prompt_id", rows["prompt_id"])
    if "responses" in {field.name for field in fields}:
        parts["responses"] = _gather(connection, "response", "resp_id", rows["resp_ids"])
    if "generators" in parts:
        models = connection.execute("SELECT gen_id, model FROM generator").fetchall()
        parts["generators"] = named_generators(models, parts["generators"])
    schema = pa.schema(fields, metadata={b"erased": str(n_members - rows.num_rows).encode()})
    return pa.table([parts[field.name].cast(field.type) for field in fields], schema=schema)


def erased(table: pa.Table) -> int:
    """How many rows a checkout left out because their text was erased."""
    return int((table.schema.metadata or {}).get(b"erased", 0))


def example_fields(columns: Sequence[str] | None, votes: Votes) -> list[pa.Field]:
    """The fields of a checkout. Raises UsageError for an unknown column."""
    unknown = set(columns or ()) - set(EXAMPLE_SCHEMA.names)
    if unknown:
        raise UsageError(f"no column {', '.join(sorted(unknown))}; one of: {', '.join(EXAMPLE_SCHEMA.names)}")
    names = EXAMPLE_SCHEMA.names if columns is None else columns
    return [EXAMPLE_SCHEMA.field(name) for name in names] + (
        [FULL_VOTES if votes == "full" else VOTES] if votes else []
    )


def _count(connection: duckdb.DuckDBPyConnection, version_id: int, split: str | None) -> int:
    query = f"SELECT count(*) FROM members_{int(version_id)} WHERE $1 IS NULL OR split = $1"
    return int(connection.execute(query, [split]).fetchall()[0][0])


_NARROW = {
    "id": "replace(e.h::VARCHAR, '-', '')",
    "unit": "replace(u.h::VARCHAR, '-', '')",
    "kind": "u.kind",
    "source": "s.source",
    "subset": "s.subset",
    "license": "s.license",
    "generators": "s.gen_ids",
    "step_ends": "u.step_ends",
    "rubric": "rubric.criteria",
    "tools": "u.tools",
    "reference": "u.reference",
    "p": "e.p",
    "ranks": "e.ranks",
    "margin": "e.margin",
    "scores": "e.scores",
    "step_labels": "e.step_labels",
    "n_votes": "e.n_votes",
    "method": "e.method",
    "family": "p.family_id",
    "split": "m.split",
    "weight": "m.weight",
    "meta": "s.meta",
    "votes": "coalesce(v.votes, [])",
}


VISIBLE = """($split IS NULL OR m.split = $split) AND p.messages IS NOT NULL
        AND NOT list_has_any(u.resp_ids, (SELECT coalesce(list(resp_id), []) FROM response WHERE messages IS NULL))"""


_RANGE = "h BETWEEN $low::UUID AND $high::UUID"
_IN_RANGE = f"unit_id IN (SELECT unit_id FROM example WHERE {_RANGE})"


def narrow_sql(
    connection: duckdb.DuckDBPyConnection,
    version_id: int,
    names: Sequence[str],
    *,
    full: bool,
    among: str | None = None,
    ranged: bool = False,
) -> str:
    """A query for prompt_id, resp_ids and those of the columns that hold no text, by example hash; of the split
    `$split` where that is not null, of the examples that the temp table `among` has, and with `ranged` of hashes from
    `$low` to `$high`."""
    target = [f"{_NARROW[name]} AS {name}" for name in names if name in _NARROW]
    held = held_sources(connection, version_id)
    return f"""
        WITH s AS ({sources_sql(held)}),
        v AS ({votes_sql(held, full=full, among=_IN_RANGE if ranged else "")})
        SELECT {", ".join(["u.prompt_id", "u.resp_ids", *target])}
        FROM {members(connection, version_id)} m JOIN example e USING (example_id) JOIN unit u USING (unit_id)
        {f"SEMI JOIN {among} USING (example_id)" if among else ""}
        JOIN prompt p USING (prompt_id) LEFT JOIN s USING (unit_id) LEFT JOIN rubric USING (rubric_id)
        {"LEFT JOIN v USING (unit_id)" if "votes" in names else ""}
        WHERE {VISIBLE} {f"AND e.{_RANGE}" if ranged else ""}
        ORDER BY e.h"""


def sources_sql(held: str) -> str:
    """A query that gives each unit one row: what its first source says, those of the query `held` before others, and
    the most restrictive license of all."""
    license = "coalesce(us.license, source.license)"
    return f"""
        WITH shared AS MATERIALIZED (SELECT unit_id FROM unit_source GROUP BY unit_id HAVING count(*) > 1)
        SELECT unit_id, source.name AS source, subset, gen_ids, meta, {license} AS license
        FROM unit_source us JOIN source USING (source_id) WHERE unit_id NOT IN (FROM shared)
        UNION ALL
        SELECT unit_id, unnest(min_by(
                struct_pack(source := source.name, subset, gen_ids, meta),
                struct_pack(other := us.source_id NOT IN ({held}), us.source_id, line))),
            max_by({license}, struct_pack(rank := {restriction_sql(license)}, name := {license}))
        FROM unit_source us JOIN source USING (source_id) WHERE unit_id IN (FROM shared) GROUP BY unit_id"""


def named_generators(generators: Iterable[tuple[int, str]], gen_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of generator ids as lists of names (in SQL a lambda over every list costs a third of the query)."""
    models = dict(generators)
    names = pa.array([models.get(gen_id) for gen_id in range(max(models, default=0) + 1)], pa.string())
    chunks = [
        pa.ListArray.from_arrays(_list_offsets(chunk), names.take(chunk.flatten()), mask=chunk.is_null())
        for chunk in gen_ids.chunks
    ]
    return pa.chunked_array(chunks, type=pa.list_(pa.string()))


def _gather(connection: duckdb.DuckDBPyConnection, table: str, key: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts of `table` for ids [rows] or lists of ids [rows][N], in that shape."""
    texts = _texts(connection, table, key, ids)
    messages, keys = texts["messages"].cast(pa.large_string()).combine_chunks(), texts[key].to_numpy()
    place = np.empty(int(keys.max(initial=-1)) + 1, dtype=np.int64)
    place[keys] = np.arange(len(keys))
    return gather_texts(messages, place, ids)


def gather_texts(messages: pa.LargeStringArray, place: npt.NDArray[np.int64], ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts at `place` of ids [rows] or lists of ids [rows][N], in that shape."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Arrow copies texts without holding the interpreter
        batches = list(pool.map(lambda batch: _gather_batch(messages, place, batch), _batches(ids)))
    kind = pa.list_(pa.string()) if pa.types.is_list(ids.type) else pa.string()
    return pa.chunked_array(batches, type=kind)


def _texts(connection: duckdb.DuckDBPyConnection, table: str, key: str, ids: pa.ChunkedArray) -> pa.Table:
    """The wanted rows of a text table; reading all of it is cheaper than a join unless few are wanted."""
    flat = pc.list_flatten(ids) if pa.types.is_list(ids.type) else ids
    few = len(flat) * FEW < connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    where = f"WHERE {key} IN (FROM wanted_texts)" if few else ""
    connection.register("wanted_texts", pa.table({key: flat}))
    try:
        texts = connection.sql(f"SELECT {key}, messages FROM {table} {where}").to_arrow_table()
    finally:
        connection.unregister("wanted_texts")
    return texts


def _batches(ids: pa.ChunkedArray) -> Iterator[pa.Array]:
    for chunk in ids.chunks:
        for start in range(0, len(chunk), _BATCH_ROWS):
            yield chunk.slice(start, _BATCH_ROWS)


def _gather_batch(messages: pa.LargeStringArray, place: npt.NDArray[np.int64], ids: Any) -> pa.Array:
    is_list = pa.types.is_list(ids.type)
    flat = ids.flatten() if is_list else ids
    texts = messages.take(pa.array(place[flat.to_numpy(zero_copy_only=False)])).cast(pa.string())
    if not is_list:
        return texts
    return pa.ListArray.from_arrays(_list_offsets(ids), texts)


def _list_offsets(lists: pa.ListArray) -> pa.Array:
    """The offsets of lists into their flattened values; those of a slice do not begin at 0."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
