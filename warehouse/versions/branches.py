"""Branches and tags: names for versions. A branch moves with its commits, a tag stays until it is moved on purpose.

Every setting, moving and removal of a tag is kept in `tag_history`.
"""

from __future__ import annotations

import duckdb

from rmkit.errors import VersionError
from warehouse.versions.versions import branch_head, check_name, get, joined_transaction, move_branch


def start_branch(connection: duckdb.DuckDBPyConnection, version_id: int, name: str) -> None:
    """A new branch at a version, in the version's dataset. Raises VersionError where the name is taken."""
    dataset_id = _dataset_of(connection, version_id)
    check_name("branch", name)
    if branch_head(connection, dataset_id, name) is not None:
        raise VersionError(f"branch {name!r} exists already; pick another name, or merge into it with: rmkit merge")
    if tag_target(connection, dataset_id, name) is not None:
        raise VersionError(f"{name!r} is a tag already, which would hide the branch; pick another name")
    move_branch(connection, dataset_id, name, version_id)


def set_tag(
    connection: duckdb.DuckDBPyConnection, version_id: int, name: str, *, actor: str, move: bool = False
) -> None:
    """Tag a version; with `move` a tag of that name leaves its old version.

    Raises VersionError where the name is a branch's, or a tag elsewhere and `move` is not set.
    """
    dataset_id = _dataset_of(connection, version_id)
    check_name("tag", name)
    if branch_head(connection, dataset_id, name) is not None:
        raise VersionError(f"{name!r} is a branch already; a tag of that name would hide it; pick another name")
    before = tag_target(connection, dataset_id, name)
    if before == version_id:
        return
    if before is not None and not move:
        raise VersionError(f"tag {name!r} is at {get(connection, before).ref} already; to move it add --move")
    with joined_transaction(connection):
        connection.execute("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", [dataset_id, name, version_id]).fetchall()
        _remember(connection, dataset_id, name, version_id, actor)


def remove_tag(connection: duckdb.DuckDBPyConnection, dataset_id: int, name: str, *, actor: str) -> None:
    """Take a tag away; its history stays. Raises VersionError for an unknown one."""
    if tag_target(connection, dataset_id, name) is None:
        raise VersionError(f"no tag {name!r} to remove; list tags with: rmkit datasets NAME")
    with joined_transaction(connection):
        connection.execute("DELETE FROM tag WHERE dataset_id = ? AND name = ?", [dataset_id, name]).fetchall()
        _remember(connection, dataset_id, name, None, actor)


def tag_target(connection: duckdb.DuckDBPyConnection, dataset_id: int, name: str) -> int | None:
    """The version id a tag stands at, None where there is no such tag."""
    query = "SELECT version_id FROM tag WHERE dataset_id = ? AND name = ?"
    rows = connection.execute(query, [dataset_id, name]).fetchall()
    return int(rows[0][0]) if rows else None


def _remember(
    connection: duckdb.DuckDBPyConnection, dataset_id: int, name: str, version_id: int | None, actor: str
) -> None:
    connection.execute(
        "INSERT INTO tag_history VALUES (?, ?, ?, ?, now())", [dataset_id, name, version_id, actor]
    ).fetchall()


def _dataset_of(connection: duckdb.DuckDBPyConnection, version_id: int) -> int:
    rows = connection.execute("SELECT dataset_id FROM version WHERE version_id = ?", [version_id]).fetchall()
    if not rows:
        raise VersionError(f"no version with id {version_id} in this warehouse; list versions with: rmkit datasets")
    return int(rows[0][0])
