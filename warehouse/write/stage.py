"""Storing chunks of incoming units: texts once by hash, everything else as integers.

The text of a chunk is hashed once, into a temp table; texts seen before are found by one hash join per chunk and only
unseen ones are written, straight into their tables. Nothing later touches text again: units, judgments and labels work
on hashes and ids. Rows of the open transaction are seen by the next chunk, so chunk boundaries change nothing.

Responses are put in the order of their hashes, and every position that came with them (ranks, shown order, scores,
generators) is carried along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa

from rmkit.data.example import KINDS
from rmkit.errors import DataError
from warehouse.sql import registered, run, setting
from warehouse.write.identity import hash_sql, unit_hash_sql

ERASED = "its text was erased from this warehouse"
CHUNK_BYTES = 128 << 20  # the chunk being stored and the one being read are in memory at the same time

_STEPPED = "len(list_filter(responses, lambda r: len(r.step_ends) > 0))"

# `permutation` holds for each new position the old one, `position` for each old position the new one, both from 1.
_INCOMING = f"""
CREATE OR REPLACE TEMP TABLE incoming AS
WITH hashed AS (
    SELECT *, {hash_sql("prompt")} AS prompt_hex,
        list_transform(responses, lambda r: {hash_sql("r.messages")}) AS unsorted,
        CASE WHEN rubric IS NOT NULL THEN {hash_sql("rubric")} END AS rubric_hex,
        CASE WHEN tools <> '' THEN {hash_sql("tools")} END AS tools_hex,
        CASE WHEN reference <> '' THEN {hash_sql("reference")} END AS reference_hex
    FROM chunk
), sorted AS (
    SELECT *, list_grade_up(list_transform(unsorted, lambda h, spot: h || lpad(spot::VARCHAR, 6, '0'))) AS permutation
    FROM hashed
)
SELECT i, line, source_row, kind, prompt_hex, rubric_hex, tools_hex, reference_hex, subset, split, license, meta,
    judgments, unsorted,
    list_select(unsorted, permutation) AS hexes,
    list_transform(list_select(responses, permutation), lambda r: r.generator) AS generators,
    CASE WHEN {_STEPPED} > 0 THEN list_transform(list_select(responses, permutation),
        lambda r: coalesce(r.step_ends, [])) END AS step_ends,
    permutation, list_grade_up(permutation) AS position
FROM sorted
"""

_CHECK = f"""
SELECT line,
    CASE WHEN kind IS NULL OR NOT list_contains({list(KINDS)}, kind) THEN 'kind'
         WHEN prompt IS NULL THEN 'prompt'
         WHEN responses IS NULL OR len(list_filter(responses, lambda r: r.messages IS NULL)) > 0 THEN 'responses'
         WHEN {_STEPPED} > 1 AND len(list_filter(judgments, lambda j: j.step_labels IS NOT NULL)) > 0 THEN 'step_labels'
         WHEN len(list_filter(judgments, lambda j: j.rater_kind IS NULL)) > 0 THEN 'rater_kind'
         WHEN len(list_filter(judgments, lambda j: len(j.ranks) <> len(responses))) > 0 THEN 'ranks'
         WHEN len(list_filter(judgments, lambda j: list_sort(j.shown_order) <> range(len(responses))::INTEGER[])) > 0
         THEN 'shown_order'
         WHEN len(list_filter(judgments, lambda j: list_sort(j.column_order) <> range(len(responses))::INTEGER[])) > 0
         THEN 'column_order'
         WHEN len(list_filter(judgments, lambda j: len(list_filter(j.scores,
            lambda s: s.response < 0 OR s.response >= len(responses))) > 0)) > 0 THEN 'scores'
    END AS broken
FROM chunk WHERE broken IS NOT NULL LIMIT 1
"""

_REFUSE = f"""
CREATE OR REPLACE TEMP TABLE dead AS
WITH gone AS (SELECT list(replace(h::VARCHAR, '-', '')) AS hexes FROM tombstone WHERE part IN ('prompt', 'response'))
SELECT i, line, source_row FROM incoming, gone
WHERE list_contains(gone.hexes, prompt_hex) OR list_has_any(gone.hexes, incoming.hexes)
    OR list_has_any(gone.hexes, list_transform(judgments, lambda j: {hash_sql("j.edit")}))
"""

# One row per distinct hash of the chunk: its id, where it first stands, and whether it is new.
_KNOWN = """
CREATE OR REPLACE TEMP TABLE known_{table} AS
WITH seen AS (SELECT hex, min(spot) AS spot FROM ({source}) WHERE hex IS NOT NULL GROUP BY hex),
found AS (SELECT seen.hex, seen.spot, t.{column} AS old_id FROM seen LEFT JOIN {table} t ON t.h = seen.hex::UUID)
SELECT hex, spot, old_id IS NULL AS new,
    coalesce(old_id, ? + row_number() OVER (PARTITION BY old_id IS NULL ORDER BY spot) - 1) AS id
FROM found
"""

_HASHED_UNITS = f"""
CREATE OR REPLACE TEMP TABLE hashed_unit AS
SELECT i, {
    unit_hash_sql(
        kind="kind",
        prompt="prompt_hex",
        responses="hexes",
        step_ends="step_ends",
        rubric="rubric_hex",
        tools="tools_hex",
        reference="reference_hex",
    )
} AS hex
FROM incoming
"""

_NEW_UNITS = """
INSERT INTO unit BY NAME
WITH answer AS (
    SELECT i, unnest(hexes) AS hex, unnest(range(len(hexes))) AS spot
    FROM incoming SEMI JOIN (SELECT spot FROM known_unit WHERE new) fresh ON fresh.spot = i
), listed AS (
    SELECT answer.i, list(k.id ORDER BY answer.spot) AS resp_ids FROM answer
    JOIN known_response k USING (hex) GROUP BY 1
)
SELECT k.id AS unit_id, k.hex::UUID AS h, u.kind, p.id AS prompt_id, coalesce(l.resp_ids, []) AS resp_ids, u.step_ends,
    r.id AS rubric_id, nullif(tools, '') AS tools, nullif(reference, '') AS reference
FROM incoming u
JOIN known_unit k ON k.spot = u.i AND k.new
JOIN known_prompt p ON p.hex = u.prompt_hex
LEFT JOIN listed l USING (i)
LEFT JOIN known_rubric r ON r.hex = u.rubric_hex
LEFT JOIN (SELECT i, tools, reference FROM chunk WHERE tools <> '' OR reference <> '') said USING (i)
ORDER BY k.id
"""

_NEW_GENERATORS = """
INSERT INTO generator BY NAME
WITH named AS (SELECT unnest(generators) AS model, i FROM incoming)
SELECT (SELECT coalesce(max(gen_id), 0) FROM generator) + row_number() OVER (ORDER BY min(i), model) AS gen_id, model
FROM named ANTI JOIN generator USING (model) WHERE model IS NOT NULL GROUP BY model
"""

_ORIGINS = """
INSERT INTO unit_source
WITH named AS (SELECT map(list(model), list(gen_id)) AS ids FROM generator)
SELECT k.id, ?, line, source_row, subset, split, license,
    CASE WHEN len(list_filter(generators, lambda g: g IS NOT NULL)) > 0
        THEN list_transform(generators, lambda g: named.ids[g]) END,
    meta
FROM incoming u JOIN hashed_unit USING (i) JOIN known_unit k USING (hex), named
ORDER BY i
"""

# Where each hash of the chunk stands, and the texts by the same places: these stream from Arrow into their table.
_HASHES = {
    "prompt": "SELECT prompt_hex AS hex, i AS spot FROM incoming",
    "response": "SELECT unnest(unsorted) AS hex, i * 4096 + unnest(range(len(unsorted))) AS spot FROM incoming",
    "rubric": "SELECT rubric_hex AS hex, i AS spot FROM incoming",
    "unit": "SELECT hex, i AS spot FROM hashed_unit",
}
_TEXTS = {
    "prompt": "SELECT prompt AS text, i AS spot FROM chunk",
    "response": "SELECT unnest(list_transform(responses, lambda r: r.messages)) AS text, "
    "i * 4096 + unnest(range(len(responses))) AS spot FROM chunk",
    "rubric": "SELECT rubric AS text, i AS spot FROM chunk",
}


@contextlib.contextmanager
def staged(connection: duckdb.DuckDBPyConnection, chunk: pa.Table, *, first: int) -> Iterator[None]:
    """For the length of the block, the temp table `incoming`: the chunk's units hashed, numbered on from `first`.

    `chunk` has UNIT_SCHEMA's columns. Raises DataError for a unit that breaks the rules of UNIT_SCHEMA.
    """
    numbers = pa.array(range(first, first + len(chunk)), pa.int64())
    with registered(connection, "chunk", chunk.append_column("i", numbers)):
        for line, column in run(connection, _CHECK):
            raise DataError(f"line {line} was read into a broken unit ({column!r} is wrong); nothing was stored")
        run(connection, _INCOMING)
        yield


def refuse_erased(connection: duckdb.DuckDBPyConnection) -> None:
    """Move units that hold erased text from `incoming` to the temp table `refused` (line, source_row)."""
    run(connection, "CREATE TEMP TABLE IF NOT EXISTS refused (line BIGINT, source_row VARCHAR)")
    run(connection, _REFUSE)
    run(connection, "INSERT INTO refused SELECT line, source_row FROM dead")
    run(connection, "DELETE FROM incoming WHERE i IN (SELECT i FROM dead)")


def store_units(connection: duckdb.DuckDBPyConnection) -> int:
    """Store what is new of `incoming`: prompts, responses, rubrics and units; the number of new units.

    Leaves temp tables known_prompt, known_response, known_rubric and known_unit (hex, spot, new, id), and hashed_unit
    (i, hex). Ids follow the order of first appearance, so the same file gives an empty warehouse the same ids.
    """
    for table, columns in (
        ("prompt", "k.id, k.hex::UUID, s.text, k.id"),
        ("response", "k.id, k.hex::UUID, s.text"),
        ("rubric", "k.id, k.hex::UUID, s.text"),
    ):
        _number(connection, table)
        with setting(connection, "threads", "1"):  # parallel inserts leave part-filled row groups, all written twice
            run(connection, _new_text(table, columns))
    run(connection, _HASHED_UNITS)
    _number(connection, "unit")
    return int(run(connection, _NEW_UNITS)[0][0])


def store_origins(connection: duckdb.DuckDBPyConnection, source_id: int) -> None:
    """Record which lines of the source the staged units come from, and who wrote their responses."""
    store_generators(connection)
    run(connection, _ORIGINS, [source_id])


def store_generators(connection: duckdb.DuckDBPyConnection) -> None:
    """Number the authors of the staged responses that are not known yet."""
    run(connection, _NEW_GENERATORS)


def _number(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    column = {"response": "resp_id"}.get(table, f"{table}_id")
    (last,) = run(connection, f"SELECT coalesce(max({column}), 0) FROM {table}")[0]
    run(connection, _KNOWN.format(table=table, column=column, source=_HASHES[table]), [last + 1])


def _new_text(table: str, columns: str) -> str:
    """Insert by place, not by hash: the join carries one integer and the text streams past it."""
    place = f"({_TEXTS[table]}) s JOIN known_{table} k ON k.spot = s.spot AND k.new"
    return f"INSERT INTO {table} SELECT {columns} FROM {place}"


def chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches gathered into tables of about CHUNK_BYTES, the next one read (in a thread) while one is stored."""
    tables = gathered(batches)
    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = reader.submit(next, tables, None)
        while (chunk := waiting.result()) is not None:
            waiting = reader.submit(next, tables, None)
            yield chunk


def gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches in tables of about CHUNK_BYTES, one at a time."""
    held: list[pa.RecordBatch] = []
    n_bytes = 0
    for batch in batches:
        held.append(batch)
        n_bytes += batch.nbytes
        if n_bytes >= CHUNK_BYTES:
            yield pa.Table.from_batches(held)
            held, n_bytes = [], 0
    if held:
        yield pa.Table.from_batches(held)
