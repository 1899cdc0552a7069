"""Judgments that come with imported units, and the votes that labels are derived from.

An imported judgment's `event_id` is derived from its content (rater with the source's name before it, unit, and
everything said), so a re-ingest, or another revision of the source, never stores it twice. Equal judgments of one unit
in one line (three anonymous votes for the first) are told apart by their count; equal lines are one judgment. Another
source that says the same is noted in `judgment_source`.

A rater of one name is one rater. Where nothing says what kind, the kind is unknown until a later file says it; where
two files state different kinds, the later one's rater is another one, with its kind in the name.
"""

from __future__ import annotations

import uuid

import duckdb

from warehouse.sql import run
from warehouse.write.identity import hash_sql
from warehouse.write.newest import replaced_sql

VOTES = """
CREATE OR REPLACE TEMP TABLE vote (
    unit_id BIGINT, event_id UUID, rater_id INTEGER, "time" TIMESTAMPTZ, ranks INTEGER[], strength DOUBLE,
    scores STRUCT(response INTEGER, aspect VARCHAR, "value" DOUBLE)[], step_labels DOUBLE[], edit VARCHAR
)
"""

_SAID = (
    "'a': rater, 'b': rater_kind, 'c': unit_hex, 'd': ranks, 'e': shown_order, 'f': strength, 'g': scores, "
    "'h': step_labels, 'i': edit, 'j': rationale, 'k': extra"
)
# Without time, confidence and duration the ids are those that earlier versions of rmkit gave.
_CONTENT = (
    f'CASE WHEN "time" IS NULL AND confidence IS NULL AND active_ms IS NULL THEN to_json({{{_SAID}}}) '
    f"ELSE to_json({{{_SAID}, 'l': epoch_us(\"time\"), 'm': confidence, 'n': active_ms}}) END"
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
        list_transform(j.column_order, lambda s: (position[s + 1] - 1)::INTEGER) AS column_order,
        j.strength AS strength,
        list_sort(list_transform(j.scores, lambda s: {{
            'response': (position[s.response + 1] - 1)::INTEGER, 'aspect': s.aspect, 'value': s.value}})) AS scores,
        j.step_labels AS step_labels, j.edit AS edit, j.rationale AS rationale, j.confidence AS confidence,
        j.active_ms AS active_ms, j."time" AS "time", j.extra AS extra
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

# The raters of the chunk: which row of `rater` each is, by name and the kind that the file states.
_RATERS = """
CREATE OR REPLACE TEMP TABLE chunk_rater AS
WITH stated AS (SELECT rater, rater_kind, min(spot) AS spot FROM judged GROUP BY ALL),
known AS (
    SELECT rater, coalesce(nullif(any_value(r.kind), 'unknown'),
        min(rater_kind) FILTER (rater_kind <> 'unknown'), 'unknown') AS kind
    FROM stated LEFT JOIN rater r ON r.name = rater GROUP BY rater
)
SELECT rater, rater_kind, spot, CASE WHEN rater_kind IN ('unknown', kind) THEN kind ELSE rater_kind END AS kind,
    CASE WHEN rater_kind IN ('unknown', kind) THEN rater ELSE rater || ' (' || rater_kind || ')' END AS name
FROM stated JOIN known USING (rater)
"""

_LEARNED = """
UPDATE rater SET kind = c.kind FROM chunk_rater c
WHERE c.name = rater.name AND rater.kind = 'unknown' AND c.kind <> 'unknown'
"""

_NEW_RATERS = """
INSERT INTO rater
SELECT (SELECT coalesce(max(rater_id), 0) FROM rater) + row_number() OVER (ORDER BY min(spot)), name, any_value(kind)
FROM chunk_rater ANTI JOIN rater USING (name) GROUP BY name
"""

_NEW_JUDGMENTS = """
INSERT INTO judgment BY NAME
WITH fresh AS (
    SELECT min(spot) AS spot FROM judged ANTI JOIN judgment USING (event_id) GROUP BY event_id
)
SELECT event_id, unit_id, rater_id, shown_order, column_order, ranks, strength, scores, step_labels, edit, rationale,
    confidence, active_ms, extra, 'ok' AS verdict, ?::INTEGER AS source_id, ?::UUID AS run_id, "time"
FROM judged SEMI JOIN fresh USING (spot) JOIN numbered_rater USING (rater, rater_kind)
"""

_REPEATED = """
INSERT INTO judgment_source
SELECT DISTINCT event_id, ?::INTEGER FROM judged JOIN judgment j USING (event_id)
WHERE j.source_id <> ? AND (event_id, ?) NOT IN (SELECT (event_id, source_id) FROM judgment_source)
"""


def store_judgments(connection: duckdb.DuckDBPyConnection, source_id: int, source_name: str, run_id: uuid.UUID) -> None:
    """Store the judgments of the staged chunk that are not known yet, and add all of them to the temp table vote."""
    run(connection, _JUDGED, [source_name])
    for sql in (_RATERS, _LEARNED, _NEW_RATERS):
        run(connection, sql)
    run(
        connection,
        "CREATE OR REPLACE TEMP TABLE numbered_rater AS SELECT rater, rater_kind, rater_id FROM chunk_rater "
        "JOIN rater USING (name)",
    )
    [(n_new,)] = run(connection, _NEW_JUDGMENTS, [source_id, run_id])
    if n_new < run(connection, "SELECT count(*) FROM judged")[0][0]:
        run(connection, _REPEATED, [source_id, source_id, source_id])
    run(
        connection,
        'INSERT INTO vote SELECT unit_id, event_id, rater_id, "time", ranks, strength, scores, step_labels, edit '
        "FROM judged JOIN numbered_rater USING (rater, rater_kind)",
    )


def drop_replaced(connection: duckdb.DuckDBPyConnection) -> None:
    """Take out of the temp table vote what the same rater answered anew later."""
    if run(connection, 'SELECT 1 FROM vote WHERE "time" IS NOT NULL LIMIT 1'):
        run(connection, f"DELETE FROM vote WHERE event_id IN ({replaced_sql('vote')})")
