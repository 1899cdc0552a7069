"""The valid judgments of each unit as a list, in the order of the unit's own responses.

People judge a text once; a step may rewrite it into a new unit (see rewrite). A rewritten unit inherits the judgments
made of the units it came from, positions carried along by `parent_order`, so that a second recipe still sees them.

A judgment that a file brought counts in the datasets that hold one of the files that say it: one text may be known from
two datasets whose labels contradict each other, and neither may blur the other's. A judgment of the ledger has no
source: somebody judged that very text, and it counts wherever the unit is.
"""

from __future__ import annotations

import pyarrow as pa

from rmkit.data.example import SCORE_STRUCT
from warehouse.write.newest import replaced_sql

VOTE_STRUCT = pa.struct(
    [
        ("rater", pa.string()),
        ("rater_kind", pa.string()),
        ("ranks", pa.list_(pa.int32())),
        ("shown_order", pa.list_(pa.int32())),
        ("column_order", pa.list_(pa.int32())),
        ("strength", pa.float64()),
        ("scores", pa.list_(SCORE_STRUCT)),
    ]
)

# What else a judgment says, for those who read more than its vote.
FULL_VOTE_STRUCT = pa.struct(
    [
        *VOTE_STRUCT,
        ("step_labels", pa.list_(pa.float64())),
        ("edit", pa.string()),
        ("rationale", pa.string()),
        ("confidence", pa.float64()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("extra", pa.string()),
    ]
)

# [unit] with each unit it came from and, per response, its place there (from 0; -1 where that unit does not have it).
_ORIGIN = """
SELECT unit_id, parent_unit_id AS origin_id, parent_order AS place FROM unit WHERE parent_unit_id IS NOT NULL
UNION ALL
SELECT o.unit_id, u.parent_unit_id, list_transform(o.place, lambda spot: coalesce(u.parent_order[spot + 1], -1))
FROM origin o JOIN unit u ON u.unit_id = o.origin_id WHERE u.parent_unit_id IS NOT NULL
"""

_MOVED = """
SELECT o.unit_id, event_id, rater_id, "time", source_id, strength, step_labels, edit, rationale, confidence,
    extra, list_select(ranks, list_transform(place, lambda spot: spot + 1)) AS ranks,
    list_transform(shown_order, lambda shown: (list_position(place, shown) - 1)::INTEGER) AS shown_order,
    list_transform(column_order, lambda shown: (list_position(place, shown) - 1)::INTEGER) AS column_order,
    list_transform(scores, lambda s: {'response': (list_position(place, s.response) - 1)::INTEGER,
        'aspect': s.aspect, 'value': s."value"}) AS scores
FROM valid v JOIN origin o ON o.origin_id = v.unit_id
"""


def votes_sql(sources: str, *, full: bool = False, among: str = "") -> str:
    """A query for (unit_id, votes): a list of VOTE_STRUCT (or FULL_VOTE_STRUCT), oldest first, for units with a valid
    judgment.

    Valid are judgments whose verdict is ok, that no other supersedes, and that are from the ledger or said by one of
    the `sources` (a query for source ids, see `versions.held_sources`). Of what files say, the newest answer of one
    rater counts (see newest); in the ledger an answer is replaced by one that names it. `among` is a condition on
    unit_id: DuckDB holds the lists of all units in memory at once.
    """
    fields = [field.name for field in (FULL_VOTE_STRUCT if full else VOTE_STRUCT)][2:]
    packed = ", ".join(f'"{name}"' for name in fields)
    return f"""
        WITH RECURSIVE origin AS ({_ORIGIN}),
        valid AS (FROM judgment WHERE verdict = 'ok'
            AND event_id NOT IN (SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL)
            AND (source_id IS NULL OR source_id IN ({sources})
                OR event_id IN (SELECT event_id FROM judgment_source WHERE source_id IN ({sources})))),
        judged AS (
            SELECT unit_id, event_id, rater_id, "time", source_id, strength, step_labels, edit, rationale,
                confidence, extra, ranks, shown_order, column_order, scores FROM valid
            UNION ALL BY NAME {_MOVED}),
        imported AS (FROM judged WHERE source_id IS NOT NULL)
        SELECT unit_id,
            list(struct_pack(rater := name, rater_kind := kind, {packed}) ORDER BY "time", event_id) AS votes
        FROM judged JOIN rater USING (rater_id) WHERE event_id NOT IN ({replaced_sql("imported")})
        {f"AND {among}" if among else ""} GROUP BY unit_id"""
