"""Dataset states as plain dictionaries, and the same states as committed versions: a model to compare with.

A state maps example id -> (split, weight). Example ids 0..11 exist; ids 2u and 2u + 1 are two labels of unit u.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import duckdb

from rmkit.types import DatasetVersion
from warehouse.migrate import migrate
from warehouse.versions.versions import commit, members_sql, resolve

State = dict[int, tuple[str | None, float]]
N_EXAMPLES = 12


def add_examples(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "INSERT INTO example SELECT i, left(sha256(i::VARCHAR), 32)::UUID, i // 2, 'votes', [1.0, 0.0], [0, 1], NULL, "
        f"NULL, NULL, 1 FROM range({N_EXAMPLES}) t(i)"
    ).fetchall()


def empty_warehouse() -> duckdb.DuckDBPyConnection:
    """In memory and shared by all examples of a property; `forget` makes it fresh again."""
    connection = duckdb.connect()
    migrate(connection, Path(":memory:"))
    add_examples(connection)
    return connection


def forget(connection: duckdb.DuckDBPyConnection) -> None:
    for table in ("dataset", "version", "delta", "branch", "tag", "tag_history"):
        connection.execute(f"DELETE FROM {table}").fetchall()


def put(
    connection: duckdb.DuckDBPyConnection, dataset: str, state: Mapping[int, tuple[str | None, float]], **more: object
) -> DatasetVersion:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE state (example_id BIGINT, split VARCHAR, weight DOUBLE)"
    ).fetchall()
    if state:
        values = [value for key, (split, weight) in state.items() for value in (key, split, weight)]
        connection.execute(f"INSERT INTO state VALUES {', '.join(['(?, ?, ?)'] * len(state))}", values).fetchall()
    return commit(connection, dataset, "state", **({"message": "state", "author": "tester"} | more))  # type: ignore[arg-type]


def held(connection: duckdb.DuckDBPyConnection, version: DatasetVersion) -> State:
    rows = connection.sql(members_sql(connection, resolve(connection, version.ref))).fetchall()
    assert len(rows) == len({key for key, _, _ in rows}) == version.n_rows
    return {key: (split, weight) for key, split, weight in rows}


def model_diff(old: State, new: State) -> dict[str, int]:
    come, gone = Counter(key // 2 for key in new.keys() - old), Counter(key // 2 for key in old.keys() - new)
    relabeled = sum((come & gone).values())
    changed = sum(old[key] != new[key] for key in old.keys() & new)
    return {
        "added": sum(come.values()) - relabeled,
        "removed": sum(gone.values()) - relabeled,
        "relabeled": relabeled,
        "changed": changed,
    }


def model_merge(base: State, ours: State, theirs: State, prefer: str | None) -> State | None:
    """The merged state, None for conflicts that nothing settles."""
    merged: State = {}
    new_here = {key // 2 for key in ours.keys() - theirs.keys() - base.keys()}
    new_there = {key // 2 for key in theirs.keys() - ours.keys() - base.keys()}
    contested = new_here & new_there
    if contested and prefer is None:
        return None
    for key in ours.keys() | theirs.keys():
        if key in base and (key not in ours or key not in theirs):
            continue
        if key not in ours or key not in theirs:
            if key // 2 in contested and (key in ours) != (prefer == "ours"):
                continue
            merged[key] = ours.get(key) or theirs[key]
            continue
        picked = []
        for at in (0, 1):
            o, t, b = ours[key][at], theirs[key][at], base[key][at] if key in base else object()
            if o != t and o != b and t != b:
                if prefer is None:
                    return None
                picked.append(o if prefer == "ours" else t)
            else:
                picked.append(t if o == b else o)
        merged[key] = (picked[0], picked[1])  # type: ignore[assignment]
    return merged
