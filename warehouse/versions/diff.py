"""What changed between two versions, row by row.

Along one line of first parents only the deltas after the common ancestor are read, so the cost follows the size of the
change and not of the dataset.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from warehouse.versions.versions import first_parents, listed, members_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Counts of what changed from version `old` to version `new` (version ids); `rows` gives the rows.

    `relabeled` counts units present on both sides under another label: each is one removed and one added example, and
    is counted in neither `added` nor `removed`. `changed` counts examples whose split or weight differ.
    """

    old: int
    new: int
    added: int
    removed: int
    relabeled: int
    changed: int

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.relabeled or self.changed)


def diff(connection: duckdb.DuckDBPyConnection, old: int, new: int) -> Diff:
    """The counts between two versions, of one dataset or of two. Raises VersionError for an unknown version id."""
    query = f"""
        WITH touched AS MATERIALIZED ({_touched_sql(connection, old, new)}),
        moved AS (SELECT sum(come::TINYINT) AS come, sum(gone::TINYINT) AS gone
            FROM (FROM touched WHERE come OR gone) JOIN example USING (example_id) GROUP BY unit_id)
        SELECT sum(greatest(come - gone, 0)), sum(greatest(gone - come, 0)), sum(least(come, gone)),
            (SELECT count(*) FROM touched WHERE stayed AND n_ops = 1),
            (SELECT count(*) FROM ({_states_sql(connection, old, new)}) WHERE was IS DISTINCT FROM now)
        FROM moved"""
    added, removed, relabeled, set_once, set_often = (int(n or 0) for n in connection.execute(query).fetchall()[0])
    return Diff(old=old, new=new, added=added, removed=removed, relabeled=relabeled, changed=set_once + set_often)


def _states_sql(connection: duckdb.DuckDBPyConnection, old: int, new: int) -> str:
    """Of the rows of `touched` on both sides with several ops (one alone always changes something), `was` and `now`.

    Reads the lines back to their roots, but only these rows of them: joining two full memberships takes five times as
    long.
    """
    old_line, new_line = first_parents(connection, old), first_parents(connection, new)
    last = "arg_max(struct_pack(split, weight), version_id) FILTER"
    return f"""
        SELECT {last} (version_id IN ({listed(old_line)})) AS was, {last} (version_id IN ({listed(new_line)})) AS now
        FROM delta WHERE version_id IN ({listed({*old_line, *new_line})})
        AND example_id IN (SELECT example_id FROM touched WHERE stayed AND n_ops > 1) GROUP BY example_id"""


def diff_rows(
    connection: duckdb.DuckDBPyConnection, old: int, new: int, *, limit_per_kind: int | None = None
) -> pa.Table:
    """The rows behind the counts: columns `what`, `old_id`, `new_id` (example ids, null on the side where there is
    none), `unit_id`, `old_split`, `new_split`, `old_weight`, `new_weight`, ordered by what and ids.
    """
    touched = _touched_sql(connection, old, new)
    query = f"""
        WITH touched AS MATERIALIZED ({touched}),
        gone AS ({_side_sql(connection, old, "gone")}), come AS ({_side_sql(connection, new, "come")}),
        listed AS (SELECT CASE WHEN gone.unit_id IS NULL THEN 'added' WHEN come.unit_id IS NULL THEN 'removed'
                ELSE 'relabeled' END AS what, gone.example_id AS old_id, come.example_id AS new_id, unit_id,
            gone.split AS old_split, come.split AS new_split, gone.weight AS old_weight, come.weight AS new_weight
        FROM gone FULL JOIN come USING (unit_id, nth)
        UNION ALL
        SELECT 'changed', example_id, example_id, unit_id, old_split, new_split, old_weight, new_weight
        FROM ({_changed_sql(connection, old, new)}) JOIN example USING (example_id)
        )
        FROM listed QUALIFY $1 IS NULL OR row_number() OVER (PARTITION BY what ORDER BY coalesce(old_id, new_id)) <= $1
        ORDER BY what, coalesce(old_id, new_id), new_id"""
    return connection.sql(query, params=[limit_per_kind]).to_arrow_table()


def _side_sql(connection: duckdb.DuckDBPyConnection, version_id: int, flag: str) -> str:
    return f"""
        SELECT example_id, unit_id, split, weight, row_number() OVER (PARTITION BY unit_id ORDER BY example_id) AS nth
        FROM ({members_sql(connection, version_id)}) JOIN (FROM touched WHERE {flag}) USING (example_id)
        JOIN example USING (example_id)"""


def _changed_sql(connection: duckdb.DuckDBPyConnection, old: int, new: int) -> str:
    """Of the rows of `touched` that are on both sides, those whose split or weight differ."""
    return f"""
        SELECT example_id, o.split AS old_split, n.split AS new_split, o.weight AS old_weight, n.weight AS new_weight
        FROM (SELECT example_id FROM touched WHERE stayed)
        JOIN ({members_sql(connection, old)}) o USING (example_id)
        JOIN ({members_sql(connection, new)}) n USING (example_id)
        WHERE o.split IS DISTINCT FROM n.split OR o.weight IS DISTINCT FROM n.weight"""


def _touched_sql(connection: duckdb.DuckDBPyConnection, old: int, new: int) -> str:
    """The rows with a delta since the common ancestor (no other can differ), and whether each came, went or stayed.

    A row was there at the ancestor unless its first op since, on either side, adds it; it is there now unless the last
    op of the side removes it. Words are packed as 4 * version_id + op + 1, so min and max find first and last.
    """
    old_line, new_line = first_parents(connection, old), first_parents(connection, new)
    old_tips, new_tips = set(old_line) - set(new_line), set(new_line) - set(old_line)
    both = old_tips | new_tips
    return f"""
        SELECT example_id, NOT old_there AND new_there AS come, old_there AND NOT new_there AS gone,
            old_there AND new_there AS stayed, n_ops
        FROM (SELECT example_id, count(*) AS n_ops, min(word) % 4 < 2 AS base_there,
                {_there(old_tips, both)} AS old_there, {_there(new_tips, both)} AS new_there
            FROM (SELECT example_id, version_id, 4 * version_id::BIGINT + op + 1 AS word FROM delta
                WHERE version_id IN ({listed(both) or "NULL"}))
            GROUP BY example_id)"""


def _there(tips: Collection[int], both: Collection[int]) -> str:
    if not tips:
        return "base_there"
    own = "" if tips == both else f" FILTER (version_id IN ({listed(tips)}))"  # the filter costs a third of the query
    return f"coalesce(max(word){own} % 4 > 0, base_there)"
