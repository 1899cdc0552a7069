"""Commits and references: digests, deltas, what is refused and what is suggested."""

from __future__ import annotations

import hashlib

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.errors import VersionError
from tests.warehouse.states import empty_warehouse, forget, held, put
from warehouse.store import transaction
from warehouse.versions.digest import digest_rows
from warehouse.versions.versions import commit, get, members, resolve

SHARED = empty_warehouse()


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    forget(SHARED)
    return SHARED


def example_hash(key: int) -> str:
    return hashlib.sha256(str(key).encode()).hexdigest()[:32]


def delta(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[tuple[object, ...]]:
    query = f"SELECT example_id, op, split, weight FROM delta WHERE version_id = {version_id} ORDER BY 1"
    return connection.sql(query).fetchall()


def test_the_digest_is_the_documented_one(connection: duckdb.DuckDBPyConnection) -> None:
    version = put(connection, "d", {3: ("train", 1.0), 5: (None, 0.1)})
    lines = sorted([f"{example_hash(3)}\ttrain\t1\n", f"{example_hash(5)}\t\t0.10000000000000001\n"])
    assert version.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (version.number, version.n_rows, version.parents, version.ref) == (1, 2, (), "d@v1")


@settings(max_examples=12, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 11),
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5),
            st.floats(0, allow_infinity=False, allow_nan=False),
        ),
    )
)
def test_the_digest_agrees_with_plain_python(state: dict[int, tuple[str | None, float]]) -> None:
    forget(SHARED)
    version = put(SHARED, "d", state)
    assert version.digest == digest_rows((example_hash(key), *state[key]) for key in state)


def test_a_commit_stores_only_what_changed(connection: duckdb.DuckDBPyConnection) -> None:
    first = put(connection, "d", {1: ("train", 1.0), 2: ("train", 1.0), 3: ("train", 1.0)})
    second = put(connection, "d", {1: ("train", 1.0), 2: ("test", 1.0), 4: ("train", 2.0)})
    assert delta(connection, 2) == [(2, 0, "test", 1.0), (3, -1, None, None), (4, 1, "train", 2.0)]
    assert second.parents == (first.digest,)
    assert held(connection, first) == {1: ("train", 1.0), 2: ("train", 1.0), 3: ("train", 1.0)}
    assert held(connection, second) == {1: ("train", 1.0), 2: ("test", 1.0), 4: ("train", 2.0)}


def test_a_row_that_left_and_came_back_is_there(connection: duckdb.DuckDBPyConnection) -> None:
    state = {1: ("train", 1.0), 2: ("train", 1.0)}
    first = put(connection, "d", state)
    put(connection, "d", {1: ("train", 1.0)})
    third = put(connection, "d", state)
    assert third.digest == first.digest
    assert third.number == 3
    assert held(connection, third) == state


def test_committing_the_same_again_writes_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    first = put(connection, "d", {1: ("train", 1.0)}, message="one")
    assert put(connection, "d", {1: ("train", 1.0)}, message="two") == first
    assert connection.sql("SELECT count(*) FROM version").fetchall() == [(1,)]
    assert connection.sql("SELECT count(*) FROM delta").fetchall() == [(1,)]


def test_empty_splits_and_null_weights_are_normalized(connection: duckdb.DuckDBPyConnection) -> None:
    version = commit(
        connection, "d", "(SELECT 1 AS example_id, '' AS split, NULL::DOUBLE AS weight)", message="", author=""
    )
    assert held(connection, version) == {1: (None, 1.0)}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("SELECT 99 AS example_id, 'train' AS split, 1.0 AS weight", "1 of 1 rows name no example"),
        ("SELECT 1 AS example_id, 'train' AS split, 1.0 AS weight FROM range(2)", "repeat an example id"),
        ("SELECT 1 AS example_id, 'train' AS split, 'nan'::DOUBLE AS weight", "not finite"),
        ("SELECT 1 AS example_id, 'train' AS split, -0.5 AS weight", "not finite and >= 0"),
        ("SELECT 1 AS example_id, 'a' || chr(9) AS split, 1.0 AS weight", "tab or line break"),
    ],
)
def test_bad_rows_are_refused_and_leave_nothing(connection: duckdb.DuckDBPyConnection, rows: str, says: str) -> None:
    with pytest.raises(VersionError, match=says):
        commit(connection, "d", f"({rows})", message="", author="")
    for table in ("dataset", "version", "delta", "branch"):
        assert connection.sql(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]


@pytest.mark.parametrize("name", ["", "a b", "a@b", "-x"])
def test_names_that_could_not_be_parsed_back_are_refused(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    with pytest.raises(VersionError, match="pick another"):
        put(connection, name, {1: ("train", 1.0)})
    with pytest.raises(VersionError, match="pick another"):
        put(connection, "d", {1: ("train", 1.0)}, branch=name)


def test_a_commit_joins_the_callers_transaction(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("BEGIN TRANSACTION").fetchall()
    put(connection, "d", {1: ("train", 1.0)})
    connection.execute("ROLLBACK").fetchall()
    assert connection.sql("SELECT count(*) FROM version").fetchall() == [(0,)]
    with transaction(connection):
        put(connection, "d", {1: ("train", 1.0)})
    assert get(connection, resolve(connection, "d")).n_rows == 1


def test_a_version_made_from_another_dataset_stores_the_difference(connection: duckdb.DuckDBPyConnection) -> None:
    raw = put(connection, "raw", dict.fromkeys(range(10), ("train", 1.0)))
    clean = put(connection, "clean", dict.fromkeys(range(9), ("train", 1.0)), parents=[resolve(connection, "raw")])
    assert clean.parents == (raw.digest,)
    assert delta(connection, resolve(connection, "clean")) == [(9, -1, None, None)]
    again = put(connection, "clean", {1: ("test", 1.0)}, parents=[resolve(connection, "raw")])
    assert again.parents == (clean.digest, raw.digest)  # the delta is against the branch's own head
    assert held(connection, again) == {1: ("test", 1.0)}


def test_a_new_branch_starts_at_main(connection: duckdb.DuckDBPyConnection) -> None:
    first = put(connection, "d", {1: ("train", 1.0)})
    assert put(connection, "d", {1: ("train", 1.0)}, branch="same") == first
    other = put(connection, "d", {2: ("train", 1.0)}, branch="other")
    assert other.parents == (first.digest,)
    assert get(connection, resolve(connection, "d")) == first
    assert get(connection, resolve(connection, "d@same")) == first
    assert get(connection, resolve(connection, "d@other")) == other


def test_references(connection: duckdb.DuckDBPyConnection) -> None:
    first = put(connection, "hh", {1: ("train", 1.0)})
    second = put(connection, "hh", {2: ("train", 1.0)})
    connection.execute("INSERT INTO tag VALUES (1, 'gold', 1)").fetchall()
    assert [resolve(connection, ref) for ref in ("hh@v1", "hh@1", "hh@gold", f"hh@{first.digest[:8]}")] == [1] * 4
    assert [resolve(connection, ref) for ref in ("hh", "hh@", "hh@main", "hh@v2", f"hh@{second.digest}")] == [2] * 5


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("hhh", "no dataset 'hhh'; did you mean hh\\?"),
        ("zzzzz", "no dataset 'zzzzz'; known: hh"),
        ("hh@v9", "no version, tag or branch 'v9'; known: v1..v1, main"),
        ("hh@mian", "did you mean main\\?"),
        ("hh@0000", "no version, tag or branch '0000'"),
    ],
)
def test_unknown_references_suggest_what_exists(connection: duckdb.DuckDBPyConnection, ref: str, says: str) -> None:
    put(connection, "hh", {1: ("train", 1.0)})
    with pytest.raises(VersionError, match=says):
        resolve(connection, ref)


def test_an_empty_warehouse_says_what_to_do(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(VersionError, match="rmkit ingest FILE"):
        resolve(connection, "hh")


def test_the_same_content_twice_resolves_to_the_later(connection: duckdb.DuckDBPyConnection) -> None:
    first = put(connection, "d", {1: ("train", 1.0)})
    put(connection, "d", {})
    put(connection, "d", {1: ("train", 1.0)})
    assert resolve(connection, f"d@{first.digest[:10]}") == 3


def test_unknown_version_ids(connection: duckdb.DuckDBPyConnection) -> None:
    for call in (get, members):
        with pytest.raises(VersionError, match="no version with id 7"):
            call(connection, 7)


def test_an_empty_version_has_the_digest_of_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    assert put(connection, "d", {}).digest == hashlib.sha256(b"").hexdigest() == digest_rows([])
