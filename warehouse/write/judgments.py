"""Judgments that come with imported units, and the votes that labels are derived from.

An imported judgment's `event_id` is derived from its content (rater with the source's name before it, unit, and
everything said), so a re-ingest, or another revision of the source, never stores it twice. Equal judgments of one unit
in one line (three anonymous votes for the first) are told apart by their count; equal lines are one judgment. Another
source that says the same is noted in `judgment_source`.
"""

from __future__ import annotations

import uuid

import duckdb

from warehouse.sql import run
from warehouse.write.identity import hash_sql

VOTES = """
CREATE OR REPLACE TEMP TABLE vote (
    unit_id BIGINT, event_id UUID, ranks INTEGER[], strength DOUBLE,
    scores STRUCT(response INTEGER, aspect VARCHAR, "value" DOUBLE)[], step_labels DOUBLE[]
)
"""

_CONTENT = (
    "to_json({'a': rater, 'b': rater_kind, 'c': unit_hex, 'd': ranks, 'e': shown_order, 'f': strength, 'g': scores, "
    "'h': step_labels, 'i': edit, 'j': rationale, 'k': extra})"
)

_JUDGED = f"""
CREATE OR REPLACE TEMP TABLE judged AS
WITH each AS (
    SELECT i, k.id AS unit_id, k.hex AS unit_hex, permutation, position, unnest(judgments) AS j
    FROM incoming JOIN hashed_unit USING (i) JOIN known_unit k USING (hex)
), placed AS (
    SELECT i, unit_id, unit_hex, ? || '/' || coalesce(j.rater, j.rater_kind) AS rater, j.rater_kind AS rater_kind,
        list_select(j.ranks, permutation) AS ranks,
        list_transform(j.shown_order, lambda s: (position[s + 1] - 1)::INTEGER) AS shown_order,
        j.strength AS strength,
        list_sort(list_transform(j.scores, lambda s: {{
            'response': (position[s.response + 1] - 1)::INTEGER, 'aspect': s.aspect, 'value': s.value}})) AS scores,
        j.step_labels AS step_labels, j.edit AS edit, j.rationale AS rationale, j.extra AS extra
    FROM each
), identified AS (
    SELECT *, {hash_sql(_CONTENT)} AS content FROM placed
), copied AS (
    SELECT *, row_number() OVER (PARTITION BY i, content) AS copy FROM identified
)
SELECT row_number() OVER () AS spot, * EXCLUDE (content, copy, unit_hex),
    (CASE WHEN copy = 1 THEN content ELSE {hash_sql("content || '/' || copy::VARCHAR")} END)::UUID AS event_id
FROM copied
"""

_NEW_JUDGMENTS = """
INSERT INTO judgment BY NAME
WITH fresh AS (
    SELECT min(spot) AS spot FROM judged ANTI JOIN judgment USING (event_id) GROUP BY event_id
), named AS (SELECT map(list(name), list(rater_id)) AS ids FROM rater)
SELECT event_id, unit_id, named.ids[rater] AS rater_id, shown_order, ranks, strength, scores, step_labels, edit,
    rationale, extra, 'ok' AS verdict, ?::INTEGER AS source_id, ?::UUID AS run_id
FROM judged SEMI JOIN fresh USING (spot), named
"""


_REPEATED = """
INSERT INTO judgment_source
SELECT DISTINCT event_id, ?::INTEGER FROM judged JOIN judgment j USING (event_id)
WHERE j.source_id <> ? AND (event_id, ?) NOT IN (SELECT (event_id, source_id) FROM judgment_source)
"""


def store_judgments(connection: duckdb.DuckDBPyConnection, source_id: int, source_name: str, run_id: uuid.UUID) -> None:
    """Store the judgments of the staged chunk that are not known yet, and add all of them to the temp table vote."""
    run(connection, _JUDGED, [source_name])
    run(
        connection,
        "INSERT INTO rater "
        "SELECT (SELECT coalesce(max(rater_id), 0) FROM rater) + row_number() OVER (ORDER BY min(spot)), rater, "
        "arg_min(rater_kind, spot) FROM judged ANTI JOIN rater ON rater.name = judged.rater GROUP BY rater",
    )
    [(n_new,)] = run(connection, _NEW_JUDGMENTS, [source_id, run_id])
    if n_new < run(connection, "SELECT count(*) FROM judged")[0][0]:
        run(connection, _REPEATED, [source_id, source_id, source_id])
    run(connection, "INSERT INTO vote SELECT unit_id, event_id, ranks, strength, scores, step_labels FROM judged")
