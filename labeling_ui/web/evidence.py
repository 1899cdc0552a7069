"""What an adjudicator sees beside an item: every valid vote with its reason, and what a finder said about it."""

from __future__ import annotations

from typing import Any

import duckdb

from labeling_ui.desk.items import Item

# The newest vote of each rater; what was shown to measure people (slots that are no numbers) is no vote.
_VOTES = """
SELECT name, rater.kind, ranks, strength, rationale
FROM judgment JOIN rater USING (rater_id) JOIN unit USING (unit_id)
WHERE unit.h = ?::UUID AND verdict = 'ok'
AND (extra ->> '$.slot' IS NULL OR try_cast(extra ->> '$.slot' AS INTEGER) IS NOT NULL)
AND event_id NOT IN (SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL)
QUALIFY row_number() OVER (PARTITION BY rater_id ORDER BY "time" DESC, event_id DESC) = 1
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
