"""Storing what steps made of examples: rewritten text, new labels, families, splits and weights.

A row whose text a step changed becomes a new unit that names its parent and keeps the parent's origins (file, line,
license, who wrote each response), so lineage and license survive every rewrite; what the row says in `meta` beyond the
parent's, or otherwise, stands in each origin. Responses are sorted by hash again, and the label goes along.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import duckdb
import pyarrow as pa

from rmkit.errors import DataError
from warehouse.sql import registered, run
from warehouse.write.identity import example_hash_sql
from warehouse.write.stage import gathered, staged, store_generators, store_units

ROWS = "stored_rows"

# A column that a frame may have beside EXAMPLE_SCHEMA: [N] where each response stands in the row's `unit`, from 0, or
# NEW where the unit does not have it; null where the order is the same.
PARENT_ORDER = pa.field("parent_order", pa.list_(pa.int32()))
NEW = -1

# The same for units that came of more rows than `unit` names: the other rows' units, whose origins and licenses count.
OTHER_PARENTS = pa.field("other_parents", pa.list_(pa.string()))

# UNIT_SCHEMA's columns out of EXAMPLE_SCHEMA's; the others are carried along untouched. `line` counts the frame's rows.
_AS_UNITS = """
SELECT frame_row AS line, NULL::VARCHAR AS source_row, kind, prompt,
    coalesce(list_transform(responses, lambda text, nth: {'messages': text, 'generator': generators[nth],
        'step_ends': step_ends[nth]}), []) AS responses,
    NULL::STRUCT(rater VARCHAR, rater_kind VARCHAR, ranks INTEGER[], shown_order INTEGER[], column_order INTEGER[],
        strength DOUBLE, scores STRUCT(response INTEGER, aspect VARCHAR, "value" DOUBLE)[], step_labels DOUBLE[],
        edit VARCHAR, rationale VARCHAR, confidence DOUBLE, active_ms BIGINT, "time" TIMESTAMPTZ, extra VARCHAR
        )[] AS judgments, rubric, tools, reference, subset, split, license, meta
FROM numbered
"""

_ORPHANS = """
SELECT count(DISTINCT frame_row) FROM numbered f JOIN unit u ON u.h = f.unit::UUID
JOIN prompt p USING (prompt_id) LEFT JOIN response r ON list_contains(u.resp_ids, r.resp_id)
WHERE p.messages IS NULL OR r.messages IS NULL AND r.resp_id IS NOT NULL
"""

_LINEAGE = """
CREATE OR REPLACE TEMP TABLE lineage AS
SELECT k.id AS unit_id, parent.unit_id AS parent_id, incoming.generators, numbered.meta AS new_meta,
    list_transform(incoming.permutation, lambda spot: coalesce(numbered.parent_order[spot], spot - 1)) AS parent_order
FROM known_unit k JOIN incoming ON incoming.i = k.spot JOIN numbered ON numbered.frame_row = incoming.line
JOIN unit parent ON parent.h = numbered.unit::UUID
WHERE k.new
"""

_PARENTS = """
UPDATE unit SET parent_unit_id = l.parent_id, parent_order = l.parent_order FROM lineage l
WHERE unit.unit_id = l.unit_id
"""

_ORIGINS = f"""
INSERT INTO unit_source
WITH named AS (SELECT map(list(model), list(gen_id)) AS ids FROM generator)
SELECT l.unit_id, source_id, line, source_row, subset, split, license,
    CASE WHEN list_contains(parent_order, {NEW}) THEN list_transform(generators, lambda g: named.ids[g])
         WHEN len(gen_ids) = len(parent_order)
         THEN list_select(gen_ids, list_transform(parent_order, lambda spot: spot + 1))
         WHEN gen_ids IS NOT NULL THEN list_transform(generators, lambda g: named.ids[g]) END,
    CASE WHEN new_meta IS NULL OR new_meta = meta THEN meta WHEN meta IS NULL THEN new_meta
         ELSE json_merge_patch(meta::JSON, new_meta::JSON)::VARCHAR END
FROM lineage l JOIN unit_source s ON s.unit_id = l.parent_id, named
"""

_OTHER_ORIGINS = """
INSERT INTO unit_source
SELECT DISTINCT k.id, source_id, s.line, s.source_row, s.subset, s.split, s.license, NULL::INTEGER[], s.meta
FROM (SELECT frame_row, unnest(other_parents) AS hex FROM numbered) other
JOIN incoming ON incoming.line = frame_row JOIN hashed_unit h USING (i) JOIN known_unit k ON k.hex = h.hex AND k.new
JOIN unit parent ON parent.h = other.hex::UUID JOIN unit_source s ON s.unit_id = parent.unit_id
ANTI JOIN unit_source known ON known.unit_id = k.id AND known.source_id = s.source_id AND known.line = s.line
"""

_FAMILIES = """
UPDATE prompt SET family_id = f.family FROM (
    SELECT p.id, min(family) AS family FROM numbered JOIN incoming ON incoming.line = frame_row
    JOIN known_prompt p ON p.hex = prompt_hex WHERE family IS NOT NULL GROUP BY p.id
) f WHERE prompt.prompt_id = f.id AND prompt.family_id <> f.family
"""

_LABELS = f"""
CREATE OR REPLACE TEMP TABLE hashed_label AS
WITH carried AS (
    SELECT frame_row, k.id AS unit_id, k.hex AS unit_hex, n.method, list_select(n.p, permutation) AS p,
        list_select(n.ranks, permutation) AS ranks, n.margin,
        list_sort(list_transform(n.scores, lambda s: {{
            'response': (position[s.response + 1] - 1)::INTEGER, 'aspect': s.aspect, 'value': s.value}})) AS scores,
        n.step_labels, n.n_votes, n.split, coalesce(n.weight, 1.0) AS weight
    FROM numbered n JOIN incoming ON incoming.line = frame_row JOIN hashed_unit USING (i) JOIN known_unit k USING (hex)
)
SELECT *, {example_hash_sql("unit_hex")}::UUID AS h FROM carried
"""

_NEW_EXAMPLES = """
INSERT INTO example
SELECT (SELECT coalesce(max(example_id), 0) FROM example) + row_number() OVER (ORDER BY min(frame_row)), h,
    any_value(unit_id), any_value(method), any_value(p), any_value(ranks), any_value(margin), any_value(scores),
    any_value(step_labels), any_value(n_votes)
FROM hashed_label ANTI JOIN example USING (h) GROUP BY h
"""


def store_examples(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table | Iterable[pa.RecordBatch], *, run_id: uuid.UUID
) -> str:
    """Store the rows of a pipeline; the temp table (example_id, split, weight) to commit.

    They have the columns of EXAMPLE_SCHEMA and may have PARENT_ORDER and OTHER_PARENTS. Unchanged rows keep their
    example id; a new label of a known unit is a new example; changed text is a new unit whose parent is the row's
    `unit`. `family` is written to the row's prompt (the smallest where rows disagree). Call it inside the transaction
    that commits the version.

    Raises DataError where two rows have become the same, or where text of the frame was erased since it was read.
    """
    run(connection, f"CREATE OR REPLACE TEMP TABLE {ROWS} (example_id BIGINT, split VARCHAR, weight DOUBLE)")
    first = 1
    batches = rows.to_batches(max_chunksize=8192) if isinstance(rows, pa.Table) else rows
    for part in gathered(batches):  # not ahead in a thread: who makes the batches may ask this connection
        chunk = part
        for optional in (PARENT_ORDER, OTHER_PARENTS):
            if optional.name not in chunk.column_names:
                chunk = chunk.append_column(optional, pa.nulls(len(chunk), optional.type))
        numbers = pa.array(range(first, first + len(chunk)), pa.int64())
        with registered(connection, "numbered", chunk.append_column("frame_row", numbers)):
            _store_chunk(connection, first=first)
        first += len(chunk)
    _refuse_repeats(connection)
    return ROWS


def _store_chunk(connection: duckdb.DuckDBPyConnection, *, first: int) -> None:
    _refuse_erased(connection)
    with staged(connection, connection.sql(_AS_UNITS).to_arrow_table(), first=first):
        store_units(connection)
    run(connection, _LINEAGE)
    run(connection, _PARENTS)
    if run(connection, "SELECT 1 FROM lineage WHERE list_contains(parent_order, ?) LIMIT 1", [NEW]):
        store_generators(connection)
    run(connection, _ORIGINS)
    run(connection, _OTHER_ORIGINS)
    run(connection, _FAMILIES)
    run(connection, _LABELS)
    run(connection, _NEW_EXAMPLES)
    run(connection, f"INSERT INTO {ROWS} SELECT example_id, split, weight FROM hashed_label JOIN example USING (h)")


def _refuse_erased(connection: duckdb.DuckDBPyConnection) -> None:
    if not run(connection, "SELECT 1 FROM tombstone LIMIT 1"):
        return
    n = run(connection, _ORPHANS)[0][0]
    if n:
        raise DataError(f"{n} rows hold text that was erased after they were read; read the version again and repeat")


def _refuse_repeats(connection: duckdb.DuckDBPyConnection) -> None:
    sql = (
        f"SELECT replace(any_value(h)::VARCHAR, '-', ''), count(*) FROM {ROWS} JOIN example USING (example_id) "
        "GROUP BY example_id HAVING count(*) > 1 ORDER BY 2 DESC"
    )
    repeated = run(connection, sql)
    if repeated:
        raise DataError(
            f"{sum(n - 1 for _, n in repeated)} rows equal another row (e.g. example {repeated[0][0]}) once the steps "
            "have changed text or labels; remove exact duplicates in a later step"
        )
