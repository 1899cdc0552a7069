"""What an adjudicator sees beside an item: every valid vote with its reason, and what a finder said about it."""

from __future__ import annotations

from typing import Any

import duckdb

from labeling_ui.desk.items import Item

_VOTES = """
SELECT name, rater.kind, ranks, strength, rationale
FROM judgment JOIN rater USING (rater_id) JOIN unit USING (unit_id)
WHERE unit.h = ?::UUID AND verdict = 'ok'
AND event_id NOT IN (SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL)
ORDER BY "time", event_id
"""


def votes_on(connection: duckdb.DuckDBPyConnection, item: Item, order: tuple[int, ...]) -> list[dict[str, Any]]:
    """The votes on a unit, oldest first: rater, kind, the places of the preferred responses as shown, strength, why."""
    rows = connection.execute(_VOTES, [item.unit]).fetchall()
    return [
        {
            "rater": name,
            "kind": kind,
            "preferred": [place for place, position in enumerate(order) if ranks and ranks[position] == 0],
            "strength": strength,
            "why": why,
        }
        for name, kind, ranks, strength, why in rows
    ]
