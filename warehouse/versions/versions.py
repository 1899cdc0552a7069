"""Dataset versions: an append-only delta log over integer example ids.

A version stores only what changed against its first parent (table `delta`: op 1 adds a row, 0 sets split and weight of
a row already there, -1 removes it), so a version with 2% changes of a million rows costs some tens of kilobytes however
large the rows are. Its membership is what the root of its line of first parents added, overruled by the last word that
a later delta of that line has on each row. An op tells whether the row was there before, which is what keeps a diff
from reading the root.

The identity of a version is its digest: see `warehouse.versions.digest`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence

import duckdb

from rmkit.errors import VersionError
from rmkit.types import DatasetVersion
from warehouse.store import transaction
from warehouse.versions.digest import row_digest

MAIN = "main"
_NAME = re.compile(r"[^\s@\-][^\s@]*")
_NUMBER = re.compile(r"v?(\d+)")
_DIGEST = re.compile(r"[0-9a-f]{6,64}")


def commit(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    rows: str,
    *,
    message: str,
    author: str,
    branch: str = MAIN,
    parents: Sequence[int] | None = None,
    recipe: str | None = None,
    stats: str | None = None,
    run_id: uuid.UUID | None = None,
) -> DatasetVersion:
    """A new version holding exactly the rows of the table or view `rows`; its branch moves there.

    `rows` has columns (example_id BIGINT, split VARCHAR, weight DOUBLE); a null weight is 1, an empty split is none.
    Dataset and branch are made on first sight (a new branch starts at main). The first parent is always the branch's
    head; `parents` are further version ids it was made from, of any dataset. Content equal to the head's writes nothing
    and gives the head back. Joins the caller's transaction, or is one of its own.

    Raises VersionError for unknown or duplicate example ids, weights that are not finite and >= 0, or a bad name.
    """
    with joined_transaction(connection):
        dataset_id, head = _open_branch(connection, dataset, branch)
        line = list(dict.fromkeys([*([] if head is None else [head]), *map(int, parents or ())]))
        load_rows(connection, rows)
        if head is not None and _holds_next_rows(connection, get(connection, head)):
            if branch_head(connection, dataset_id, branch) is None:
                move_branch(connection, dataset_id, branch, head)
            return get(connection, head)
        version_id = write_version(
            connection,
            dataset_id,
            branch,
            line,
            message=message,
            author=author,
            recipe=recipe,
            stats=stats,
            run_id=run_id,
        )
        return get(connection, version_id)


@contextlib.contextmanager
def joined_transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """The caller's open transaction where there is one, else a new one (DuckDB has no nested transactions)."""
    first, second = (connection.execute("SELECT txid_current()").fetchall() for _ in range(2))
    if first == second:  # outside a transaction each statement is its own
        yield
        return
    with transaction(connection):
        yield


def _open_branch(connection: duckdb.DuckDBPyConnection, dataset: str, branch: str) -> tuple[int, int | None]:
    """(dataset_id, head) of a branch; a branch not seen before starts at main's head, None in a new dataset."""
    check_name("dataset", dataset)
    check_name("branch", branch)
    rows = connection.execute("SELECT dataset_id FROM dataset WHERE name = ?", [dataset]).fetchall()
    if not rows:
        insert = (
            "INSERT INTO dataset SELECT coalesce(max(dataset_id), 0) + 1, ?, now() FROM dataset RETURNING dataset_id"
        )
        rows = connection.execute(insert, [dataset]).fetchall()
    dataset_id = int(rows[0][0])
    head = branch_head(connection, dataset_id, branch)
    return dataset_id, branch_head(connection, dataset_id, MAIN) if head is None else head


def check_name(what: str, name: str) -> str:
    """The name, or VersionError where `NAME@...` could not be parsed back or would be read as a version number."""
    if not _NAME.fullmatch(name):
        raise VersionError(f"{what} name {name!r} is empty, starts with '-' or contains a space or '@'; pick another")
    if what != "dataset" and _NUMBER.fullmatch(name):
        raise VersionError(f"{what} name {name!r} would be read as a version number; pick another")
    return name


def branch_head(connection: duckdb.DuckDBPyConnection, dataset_id: int, branch: str) -> int | None:
    """The version id a branch points to, None where there is no such branch."""
    query = "SELECT version_id FROM branch WHERE dataset_id = ? AND name = ?"
    rows = connection.execute(query, [dataset_id, branch]).fetchall()
    return int(rows[0][0]) if rows else None


def move_branch(connection: duckdb.DuckDBPyConnection, dataset_id: int, branch: str, version_id: int) -> None:
    """Point a branch, made where needed, to a version."""
    connection.execute("INSERT OR REPLACE INTO branch VALUES (?, ?, ?)", [dataset_id, branch, version_id]).fetchall()


def load_rows(connection: duckdb.DuckDBPyConnection, rows: str) -> None:
    """Check the full membership in `rows` and leave it in the temp table `next_rows`. Raises VersionError."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE next_rows AS SELECT r.example_id, e.h, nullif(r.split, '') AS split, "
        f"coalesce(r.weight, 1.0) AS weight FROM {rows} r LEFT JOIN example e USING (example_id)"
    ).fetchall()
    n, distinct, known, weights, splits = connection.execute(
        "SELECT count(*), count(DISTINCT example_id), count(h), count(*) FILTER (isfinite(weight) AND weight >= 0), "
        "count(*) FILTER (split IS NULL OR NOT regexp_matches(split, '[\\t\\n]')) FROM next_rows"
    ).fetchall()[0]
    if known < n:
        raise VersionError(f"{n - known} of {n} rows name no example of this warehouse; load them before committing")
    if distinct < n:
        raise VersionError(f"{n - distinct} of {n} rows repeat an example id; a version holds each row once")
    if weights < n or splits < n:
        raise VersionError(
            f"{n - weights} of {n} weights are not finite and >= 0, {n - splits} splits contain a tab or line break"
        )


def _holds_next_rows(connection: duckdb.DuckDBPyConnection, version: DatasetVersion) -> bool:
    (n,) = connection.execute("SELECT count(*) FROM next_rows").fetchall()[0]
    return n == version.n_rows and row_digest(connection) == version.digest


def write_version(
    connection: duckdb.DuckDBPyConnection,
    dataset_id: int,
    branch: str,
    parents: Sequence[int],
    *,
    message: str,
    author: str,
    recipe: str | None = None,
    stats: str | None = None,
    run_id: uuid.UUID | None = None,
) -> int:
    """Append the version whose full membership is `next_rows`, and move its branch there; the new version id."""
    version_id: int = connection.execute(
        "INSERT INTO version SELECT (SELECT coalesce(max(version_id), 0) + 1 FROM version), ?, "
        "(SELECT coalesce(max(number), 0) + 1 FROM version WHERE dataset_id = ?), ?, ?, "
        "(SELECT count(*) FROM next_rows), ?, ?, ?, ?, ?, now() RETURNING version_id",
        [dataset_id, dataset_id, row_digest(connection), list(parents), message, recipe, stats, author, run_id],
    ).fetchall()[0][0]
    base = members_sql(connection, parents[0]) if parents else "SELECT * FROM delta WHERE false"
    # What differs from the first parent: op -1 a row that only the parent has, 1 one that only this version has, 0 one
    # whose split or weight changed. Sorted ids compress to about a byte each.
    connection.execute(
        "INSERT INTO delta SELECT ?, coalesce(n.example_id, b.example_id) AS example_id, "
        "CASE WHEN n.example_id IS NULL THEN -1 WHEN b.example_id IS NULL THEN 1 ELSE 0 END AS op, n.split, n.weight "
        f"FROM next_rows n FULL JOIN ({base}) b ON n.example_id = b.example_id "
        "WHERE n.example_id IS NULL OR b.example_id IS NULL "
        "OR n.split IS DISTINCT FROM b.split OR n.weight IS DISTINCT FROM b.weight ORDER BY op, 2",
        [version_id],
    ).fetchall()
    move_branch(connection, dataset_id, branch, version_id)
    return version_id


def first_parents(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[int]:
    """The line of first parents from the version itself back to its root. Raises VersionError for an unknown id."""
    parent = dict(connection.execute("SELECT version_id, parents[1] FROM version").fetchall())
    if version_id not in parent:
        raise _unknown(version_id)
    line = [version_id]
    while (before := parent[line[-1]]) is not None:
        line.append(before)
    return line


def _unknown(version_id: int) -> VersionError:
    return VersionError(f"no version with id {version_id} in this warehouse; list versions with: rmkit datasets")


def ancestors(connection: duckdb.DuckDBPyConnection, version_id: int) -> set[int]:
    """The version and all that it was made from, over all parents, of any dataset. Raises VersionError for an unknown
    id."""
    parents = dict(connection.execute("SELECT version_id, parents FROM version").fetchall())
    if version_id not in parents:
        raise _unknown(version_id)
    ids: set[int] = set()
    open_ids = [version_id]
    while open_ids:
        current = open_ids.pop()
        if current not in ids:
            ids.add(current)
            open_ids += parents[current]
    return ids


def held_sources(connection: duckdb.DuckDBPyConnection, version_id: int) -> str:
    """A query for the ids of the sources whose rows the version holds: of an ingested version those read into it, of
    another one those of the versions it was made from; of all sources where none was read (rows put together by hand).

    A file whose rows were the head's already made no version; it belongs to the one that was the head then.
    """
    head_then = (
        "SELECT max_by(v.version_id, v.number) FROM version v JOIN dataset d USING (dataset_id) "
        "WHERE d.name = run.name AND v.created_at <= fetched_at"
    )
    read: dict[int, set[int]] = {}
    made_by_ingest: set[int] = set()
    for source_id, own, other in connection.execute(
        f"SELECT source_id, own.version_id, ({head_then}) FROM source JOIN run USING (run_id) "
        "LEFT JOIN version own USING (run_id) WHERE kind = 'ingest'"
    ).fetchall():
        read.setdefault(other if own is None else own, set()).add(source_id)
        made_by_ingest |= set() if own is None else {own}
    parents = dict(connection.execute("SELECT version_id, parents FROM version").fetchall())
    if version_id not in parents:
        raise _unknown(version_id)
    held: set[int] = set()
    seen: set[int] = set()
    open_ids = [version_id]
    while open_ids:
        current = open_ids.pop()
        if current not in seen:
            seen.add(current)
            held.update(read.get(current, ()))
            open_ids += [] if current in made_by_ingest else parents[current]
    ids = listed(sorted(held))
    return f"SELECT source_id FROM source WHERE source_id IN ({ids})" if ids else "SELECT source_id FROM source"


def members_sql(connection: duckdb.DuckDBPyConnection, version_id: int) -> str:
    """A query for the version's full membership: (example_id, split, weight), in no order."""
    *later, root = first_parents(connection, version_id)
    if not later:
        return f"SELECT example_id, split, weight FROM delta WHERE version_id = {root}"
    # The root's delta is its whole membership; above it a row is as its last delta on the line says (op -1: gone).
    return (
        "WITH last AS MATERIALIZED (SELECT example_id, max(version_id) AS version_id FROM delta "
        f"WHERE version_id IN ({listed(later)}) GROUP BY example_id) "
        "SELECT d.example_id, d.split, d.weight FROM delta d LEFT JOIN last USING (example_id) "
        f"WHERE d.version_id IN ({listed([root, *later])}) AND d.op >= 0 "
        f"AND d.version_id = coalesce(last.version_id, {root})"
    )


def listed(version_ids: Iterable[int]) -> str:
    """Version ids of this warehouse (never text from outside) as an SQL list."""
    return ", ".join(str(int(version_id)) for version_id in version_ids)


def members(connection: duckdb.DuckDBPyConnection, version_id: int) -> str:
    """The name of a temp table with the version's full membership: (example_id, split, weight)."""
    name = f"members_{int(version_id)}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {members_sql(connection, version_id)}").fetchall()
    return name


def get(connection: duckdb.DuckDBPyConnection, version_id: int) -> DatasetVersion:
    """The version of that id. Raises VersionError for an unknown one."""
    result = connection.execute(
        "SELECT d.name, v.number, v.digest, v.n_rows, v.parents, v.recipe, v.message "
        "FROM version v JOIN dataset d USING (dataset_id) WHERE v.version_id = ?",
        [version_id],
    ).fetchall()
    if not result:
        raise _unknown(version_id)
    name, number, digest, n_rows, parents, recipe, message = result[0]
    digests = dict(connection.execute("SELECT version_id, digest FROM version").fetchall())
    return DatasetVersion(
        name=name,
        number=number,
        digest=digest,
        n_rows=n_rows,
        parents=tuple(digests[parent] for parent in parents),
        recipe=recipe,
        message=message,
    )


def dataset_id(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """The id of a dataset. Raises VersionError naming close matches, or all, or how to make one."""
    known = dict(connection.execute("SELECT name, dataset_id FROM dataset ORDER BY name").fetchall())
    if name in known:
        return int(known[name])
    if not known:
        raise VersionError(f"no dataset {name!r}: the warehouse is empty; bring data in with: rmkit ingest FILE")
    raise VersionError(f"no dataset {name!r}; {_suggest(name, list(known))}")


def resolve(connection: duckdb.DuckDBPyConnection, ref: str) -> int:
    """The version id behind NAME (head of main), NAME@vN, NAME@N, NAME@TAG, NAME@BRANCH or NAME@DIGESTPREFIX.

    A tag wins over a branch, both over a digest prefix (6 hex digits or more). Raises VersionError with close matches.
    """
    name, at, what = ref.partition("@")
    dataset = dataset_id(connection, name)
    if not at or not what:
        what = MAIN
    versions = connection.execute(
        "SELECT number, version_id, digest FROM version WHERE dataset_id = ? ORDER BY number", [dataset]
    ).fetchall()
    if (number := _NUMBER.fullmatch(what)) and int(number[1]) in {n for n, _, _ in versions}:
        return next(int(version_id) for n, version_id, _ in versions if n == int(number[1]))
    names = _names(connection, dataset)
    if what in names:
        return names[what]
    matches = [version_id for _, version_id, digest in versions if digest.startswith(what.lower())]
    if _DIGEST.fullmatch(what.lower()) and matches:
        return _only(matches, [d for _, _, d in versions if d.startswith(what.lower())], ref)
    raise VersionError(f"{name} has no version, tag or branch {what!r}; {_suggest(what, list(names), len(versions))}")


def _names(connection: duckdb.DuckDBPyConnection, dataset_id: int) -> dict[str, int]:
    """Branches and tags of a dataset -> version id; a tag hides a branch of the same name."""
    query = (
        "SELECT name, version_id, 0 AS tag FROM branch WHERE dataset_id = $1 "
        "UNION ALL SELECT name, version_id, 1 FROM tag WHERE dataset_id = $1 ORDER BY tag, name"
    )
    return {name: int(version_id) for name, version_id, _ in connection.execute(query, [dataset_id]).fetchall()}


def _only(matches: Sequence[int], digests: Sequence[str], ref: str) -> int:
    if len(set(digests)) > 1:
        raise VersionError(f"{ref} is ambiguous: {', '.join(digest[:16] for digest in digests)}; give more digits")
    return int(matches[-1])  # the same content committed twice: the later one


def _suggest(name: str, known: Sequence[str], n_versions: int = 0) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    numbers = [f"v1..v{n_versions}"] if n_versions else []
    return f"did you mean {', '.join(close)}?" if close else f"known: {', '.join([*numbers, *known[:20]])}"
