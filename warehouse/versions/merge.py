"""Three-way merge of two versions over their best common ancestor.

Membership is a set merge on example ids: what either side added since the base comes in, what either side removed goes.
Split and weight of the rows that stay are merged one by one: the side that changed it wins. Three things are conflicts:
both sides set another split, both set another weight, and both gave one unit another label. Without a common ancestor
the base is empty.
"""

from __future__ import annotations

from typing import Literal

import duckdb

from rmkit.errors import VersionError
from rmkit.types import DatasetVersion
from warehouse.versions.versions import (
    ancestors,
    branch_head,
    dataset_id,
    get,
    joined_transaction,
    load_rows,
    members,
    move_branch,
    write_version,
)

Side = Literal["ours", "theirs"]

_SHOWN = 5


def merge(
    connection: duckdb.DuckDBPyConnection,
    theirs: int,
    *,
    into: tuple[str, str],
    author: str,
    message: str | None = None,
    prefer: Side | None = None,
) -> DatasetVersion:
    """Merge the version `theirs` into a branch, `into` = (dataset, branch), and give back the branch's new head.

    A branch that already contains `theirs` stays; one that `theirs` contains moves there without a new version; else a
    version with both parents is written. Joins the caller's transaction, or is one of its own.

    Raises VersionError for an unknown dataset or branch, and for conflicts unless `prefer` says whose word counts.
    """
    with joined_transaction(connection):
        dataset, branch = into
        home = dataset_id(connection, dataset)
        ours = branch_head(connection, home, branch)
        if ours is None:
            raise VersionError(f"{dataset} has no branch {branch!r} to merge into; start one with: rmkit branch")
        base = merge_base(connection, ours, theirs)
        if base == theirs:
            return get(connection, ours)
        if base == ours and get(connection, theirs).name == dataset:
            move_branch(connection, home, branch, theirs)
            return get(connection, theirs)
        _join_sides(connection, base, ours, theirs)
        if prefer is None:
            _refuse_conflicts(connection, ours, theirs)
        _settle(connection, prefer)
        load_rows(connection, "settled_rows")
        message = message or f"merge {get(connection, theirs).ref} into {branch}"
        merged = write_version(connection, home, branch, [ours, theirs], message=message, author=author)
        return get(connection, merged)


def merge_base(connection: duckdb.DuckDBPyConnection, one: int, other: int) -> int | None:
    """The latest version that both descend from (each descends from itself), over all parents; None without one."""
    common = ancestors(connection, one) & ancestors(connection, other)
    return max(common, default=None)  # a parent's id is always smaller than its child's


def _join_sides(connection: duckdb.DuckDBPyConnection, base: int | None, ours: int, theirs: int) -> None:
    """Temp table `side`: each row of the three versions with its state in each, whether it stays, and its conflicts."""
    base_rows = "(FROM delta WHERE false)" if base is None else members(connection, base)
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE side AS
        WITH joined AS (
            SELECT coalesce(o.example_id, t.example_id) AS example_id, b.example_id IS NOT NULL AS in_base,
                o.example_id IS NOT NULL AS in_ours, t.example_id IS NOT NULL AS in_theirs,
                o.split AS o_split, t.split AS t_split, b.split AS b_split,
                o.weight AS o_weight, t.weight AS t_weight, b.weight AS b_weight
            FROM {members(connection, ours)} o FULL JOIN {members(connection, theirs)} t USING (example_id)
            LEFT JOIN {base_rows} b ON b.example_id = coalesce(o.example_id, t.example_id)
        )
        SELECT j.*, e.unit_id, in_ours AND in_theirs OR NOT in_base AS stays,
            in_ours AND in_theirs AND {_differ("split")} AS split_conflict,
            in_ours AND in_theirs AND {_differ("weight")} AS weight_conflict,
            in_ours AND NOT in_theirs AND NOT in_base AS ours_alone,
            in_theirs AND NOT in_ours AND NOT in_base AS theirs_alone
        FROM joined j JOIN example e USING (example_id)"""
    ).fetchall()
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE contested AS SELECT unit_id FROM side GROUP BY unit_id "
        "HAVING bool_or(ours_alone) AND bool_or(theirs_alone)"
    ).fetchall()


def _differ(column: str) -> str:
    o, t, b = (f"{side}_{column}" for side in "otb")
    changed = f"{o} IS DISTINCT FROM {b} AND {t} IS DISTINCT FROM {b}"
    return f"{o} IS DISTINCT FROM {t} AND (NOT in_base OR {changed})"


def _refuse_conflicts(connection: duckdb.DuckDBPyConnection, ours: int, theirs: int) -> None:
    result = connection.execute(
        """
        SELECT count(*) OVER (), what, replace(h::VARCHAR, '-', '')[:12], o, t FROM (
            SELECT 'split' AS what, example_id, coalesce(o_split, 'none') AS o, coalesce(t_split, 'none') AS t
            FROM side WHERE split_conflict
            UNION ALL SELECT 'weight', example_id, o_weight::VARCHAR, t_weight::VARCHAR FROM side WHERE weight_conflict
            UNION ALL SELECT 'label', min(example_id) FILTER (ours_alone), 'its label', 'another'
            FROM side JOIN contested USING (unit_id) GROUP BY unit_id
        ) JOIN example USING (example_id) ORDER BY what, h LIMIT ?""",
        [_SHOWN],
    ).fetchall()
    if result:
        n, more = result[0][0], "; ..." if result[0][0] > len(result) else ""
        shown = "; ".join(f"{what} of {row}: {o} here, {t} there" for _, what, row, o, t in result)
        raise VersionError(
            f"{n} conflicts between {get(connection, ours).ref} (ours) and {get(connection, theirs).ref} (theirs): "
            f"{shown}{more}; nothing was written, repeat with --ours or --theirs to say whose word counts"
        )


def _settle(connection: duckdb.DuckDBPyConnection, prefer: Side | None) -> None:
    loser = "theirs_alone" if prefer == "ours" else "ours_alone"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE settled_rows AS
        SELECT example_id, {_settled("split", prefer)} AS split, {_settled("weight", prefer)} AS weight FROM side
        WHERE stays AND NOT ({loser} AND unit_id IN (FROM contested))"""
    ).fetchall()


def _settled(column: str, prefer: Side | None) -> str:
    winner = f"{'t' if prefer == 'theirs' else 'o'}_{column}"
    return f"""CASE WHEN NOT in_theirs THEN o_{column} WHEN NOT in_ours THEN t_{column}
        WHEN {column}_conflict THEN {winner}
        WHEN in_base AND o_{column} IS NOT DISTINCT FROM b_{column} THEN t_{column} ELSE o_{column} END"""
