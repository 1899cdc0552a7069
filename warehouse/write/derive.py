"""Labels from votes, and the examples they make (method "votes").

    p            share of the judgments for which a response is the best, ties sharing the win; judgments that rank
                 fewer than two responses say nothing here
    ranks        a single judgment's as they are; of several, the dense rank of the mean rank
    margin       mean strength, counted negative where a judgment of a pair goes against the majority and zero where it
                 is a tie or there is no majority; longer lists: the plain mean
    scores       mean per (response, aspect)
    step_labels  mean per step over the judgments that label it
    n_votes      judgments that carry any of these

Of one rater's answers to the same question the newest counts (see newest). A unit nobody judged has the empty label
with n_votes 0. Only the judgments that this file brought count, so a version's digest depends on the file alone and
not on what else the warehouse holds.
"""

from __future__ import annotations

import duckdb

from warehouse.sql import run
from warehouse.write.identity import example_hash_sql
from warehouse.write.judgments import drop_replaced

_SAYS = "(ranks IS NOT NULL OR scores IS NOT NULL OR step_labels IS NOT NULL OR strength IS NOT NULL)"
_BALLOT = "{'ranks': ranks, 'strength': strength, 'scores': scores, 'step_labels': step_labels}"

# Most units have one judgment, and then no aggregate is needed; equal lines repeat a judgment, which counts once.
_BALLOTS = f"""
CREATE OR REPLACE TEMP TABLE ballots AS
WITH counted AS (SELECT unit_id, count(*) AS n FROM vote WHERE {_SAYS} GROUP BY unit_id),
several AS (
    SELECT DISTINCT ON (event_id) vote.* FROM vote SEMI JOIN (FROM counted WHERE n > 1) many USING (unit_id)
    WHERE {_SAYS}
)
SELECT unit_id, [{_BALLOT}] AS ballots FROM vote SEMI JOIN (FROM counted WHERE n = 1) one USING (unit_id) WHERE {_SAYS}
UNION ALL
SELECT unit_id, list({_BALLOT} ORDER BY event_id) FROM several GROUP BY unit_id
"""

_RANKED = """
list_filter(list_transform(ballots, lambda b: b.ranks), lambda r: len(list_filter(r, lambda x: x IS NOT NULL)) > 1)
"""

_BEST = """
list_transform(r, lambda x: CASE WHEN x = list_min(r)
    THEN 1 / len(list_filter(r, lambda y: y = list_min(r))) ELSE 0 END)
"""

_MEAN_RANKS = "list_transform(range(1, n + 1), lambda k: list_avg(list_transform(ranked, lambda r: r[k])))"

_SIGNED = """
list_avg(list_transform(list_filter(ballots, lambda b: b.strength IS NOT NULL), lambda b: b.strength *
    CASE WHEN n <> 2 OR len(b.ranks) IS DISTINCT FROM 2 THEN 1
         ELSE coalesce(sign(p[1] - p[2]) * sign(b.ranks[2] - b.ranks[1]), 0) END))
"""

_SCORES = """
list_transform(list_sort(list_distinct(list_transform(said, lambda s: {'response': s.response, 'aspect': s.aspect}))),
    lambda key: {'response': key.response, 'aspect': key.aspect, 'value': list_avg(list_sort(list_transform(list_filter(
        said, lambda s: s.response IS NOT DISTINCT FROM key.response AND s.aspect IS NOT DISTINCT FROM key.aspect),
        lambda s: s.value)))})
"""

_STEPS = """
list_transform(range(1, list_max(list_transform(steps, lambda s: len(s))) + 1),
    lambda k: list_avg(list_transform(steps, lambda s: s[k])))
"""

_MEMBERS = """
CREATE OR REPLACE TEMP TABLE member AS
SELECT unit_id, arg_min(split, line) AS split FROM unit_source WHERE source_id = ? GROUP BY unit_id
"""

_LABELS = f"""
CREATE OR REPLACE TEMP TABLE label AS
WITH joined AS (
    SELECT unit.unit_id, unit.h AS unit_h, len(resp_ids) AS n, split, coalesce(ballots, []) AS ballots
    FROM member JOIN unit USING (unit_id) LEFT JOIN ballots USING (unit_id)
), parts AS (
    SELECT *, {_RANKED} AS ranked,
        flatten(list_filter(list_transform(ballots, lambda b: b.scores), lambda s: s IS NOT NULL)) AS said,
        list_filter(list_transform(ballots, lambda b: b.step_labels), lambda s: s IS NOT NULL) AS steps
    FROM joined
), shared AS (
    SELECT *, list_transform(ranked, lambda r: {_BEST}) AS shares,
        CASE WHEN len(ranked) > 1 THEN {_MEAN_RANKS} END AS mean_ranks
    FROM parts
), won AS (
    SELECT *, CASE WHEN len(ranked) > 0 THEN
        list_transform(range(1, n + 1), lambda k: list_avg(list_transform(shares, lambda s: s[k]))) END AS p
    FROM shared
)
SELECT unit_id, unit_h, split, p,
    CASE WHEN len(ranked) = 1 THEN ranked[1] WHEN len(ranked) > 1 THEN list_transform(mean_ranks,
        lambda m: (list_position(list_sort(list_distinct(mean_ranks)), m) - 1)::INTEGER) END AS ranks,
    {_SIGNED} AS margin,
    CASE WHEN len(said) > 0 THEN {_SCORES} END AS scores,
    CASE WHEN len(steps) > 0 THEN {_STEPS} END AS step_labels,
    len(ballots)::INTEGER AS n_votes, 'votes' AS method
FROM won
"""

_HASHED = f"""
CREATE OR REPLACE TEMP TABLE hashed_label AS
SELECT *, {example_hash_sql("replace(unit_h::VARCHAR, '-', '')")}::UUID AS h FROM label
"""

_NEW_EXAMPLES = """
INSERT INTO example
SELECT ? + row_number() OVER (ORDER BY unit_id), h, unit_id, method, p, ranks, margin, scores, step_labels, n_votes
FROM hashed_label ANTI JOIN example USING (h)
"""

ROWS = "loaded_rows"


def derive_examples(connection: duckdb.DuckDBPyConnection, source_id: int) -> str:
    """Store the labels of a source's units from the temp table vote; the temp table of its rows, ready to commit."""
    run(connection, _MEMBERS, [source_id])
    return derive_labels(connection)


def derive_labels(connection: duckdb.DuckDBPyConnection) -> str:
    """Store the labels of the units in the temp table member (unit_id, split) from the temp table vote.

    Gives the temp table (example_id, split, weight) of these rows, ready to commit.
    """
    drop_replaced(connection)
    run(connection, _BALLOTS)
    run(connection, _LABELS)
    run(connection, _HASHED)
    (last,) = run(connection, "SELECT coalesce(max(example_id), 0) FROM example")[0]
    run(connection, _NEW_EXAMPLES, [last])
    run(
        connection,
        f"CREATE OR REPLACE TEMP TABLE {ROWS} AS "
        "SELECT e.example_id, l.split, 1.0::DOUBLE AS weight FROM hashed_label l JOIN example e USING (h)",
    )
    return ROWS
