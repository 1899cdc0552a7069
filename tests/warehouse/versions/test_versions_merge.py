"""Branches, tags and merges; random edit histories against a model made of plain dictionaries."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.errors import VersionError
from tests.warehouse.states import State, empty_warehouse, forget, held, model_diff, model_merge, put
from warehouse.versions.branches import remove_tag, set_tag, start_branch
from warehouse.versions.diff import diff, diff_rows
from warehouse.versions.merge import merge, merge_base
from warehouse.versions.versions import dataset_id, get, resolve

SHARED = empty_warehouse()


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    forget(SHARED)
    return SHARED


def fork(connection: duckdb.DuckDBPyConnection, base: State, ours: State, theirs: State) -> int:
    """Dataset d with `ours` on main and `theirs` on side, both made from `base`; the version id of theirs."""
    put(connection, "d", base)
    start_branch(connection, resolve(connection, "d"), "side")
    put(connection, "d", ours)
    put(connection, "d", theirs, branch="side")
    return resolve(connection, "d@side")


def test_a_merge_takes_both_sides_changes(connection: duckdb.DuckDBPyConnection) -> None:
    base: State = {0: ("train", 1.0), 2: ("train", 1.0), 4: ("train", 1.0), 6: ("train", 1.0)}
    ours: State = {0: ("test", 1.0), 2: ("train", 1.0), 6: ("train", 1.0), 8: ("train", 1.0)}  # 4 gone, 8 new
    theirs: State = {0: ("train", 3.0), 4: ("train", 1.0), 6: ("dev", 1.0), 10: ("train", 1.0)}  # 2 gone, 10 new
    theirs_id = fork(connection, base, ours, theirs)
    ours_digest = get(connection, resolve(connection, "d")).digest
    merged = merge(connection, theirs_id, into=("d", "main"), author="tester")
    expected = {0: ("test", 3.0), 6: ("dev", 1.0), 8: ("train", 1.0), 10: ("train", 1.0)}
    assert held(connection, merged) == expected
    assert merged.parents == (ours_digest, get(connection, theirs_id).digest)
    assert merged.message == "merge d@v3 into main"
    assert get(connection, resolve(connection, "d@main")) == merged
    assert merge(connection, theirs_id, into=("d", "main"), author="tester") == merged  # nothing left to merge


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ({0: ("test", 1.0)}, {0: ("dev", 1.0)}, "split of 5feceb66ffc8: test here, dev there"),
        ({0: ("train", 2.0)}, {0: ("train", 3.0)}, "weight of 5feceb66ffc8: 2.0 here, 3.0 there"),
        ({2: ("train", 1.0)}, {3: ("train", 1.0)}, "label of"),
    ],
)
def test_conflicts_are_listed_and_settled_on_demand(
    connection: duckdb.DuckDBPyConnection, ours: State, theirs: State, says: str
) -> None:
    base: State = {0: ("train", 1.0)}
    theirs_id = fork(connection, base, ours, theirs)
    before = resolve(connection, "d@main")
    with pytest.raises(VersionError, match=f"1 conflicts .*{says}.*--ours or --theirs"):
        merge(connection, theirs_id, into=("d", "main"), author="tester")
    assert resolve(connection, "d@main") == before
    kept = merge(connection, theirs_id, into=("d", "main"), author="tester", prefer="theirs")
    assert held(connection, kept) == theirs


def test_merging_what_is_only_ahead_moves_the_branch(connection: duckdb.DuckDBPyConnection) -> None:
    put(connection, "d", {0: ("train", 1.0)})
    start_branch(connection, 1, "side")
    ahead = put(connection, "d", {2: ("train", 1.0)}, branch="side")
    assert merge(connection, 2, into=("d", "main"), author="tester") == ahead
    assert resolve(connection, "d@main") == 2
    assert connection.sql("SELECT count(*) FROM version").fetchall() == [(2,)]


def test_datasets_without_a_common_past_are_united(connection: duckdb.DuckDBPyConnection) -> None:
    put(connection, "a", {0: ("train", 1.0), 2: ("train", 1.0)})
    put(connection, "b", {2: ("train", 1.0), 4: ("test", 1.0)})
    assert merge_base(connection, 1, 2) is None
    merged = merge(connection, 2, into=("a", "main"), author="tester")
    assert held(connection, merged) == {0: ("train", 1.0), 2: ("train", 1.0), 4: ("test", 1.0)}
    assert merged.name == "a"


def test_merging_into_an_unknown_branch(connection: duckdb.DuckDBPyConnection) -> None:
    put(connection, "d", {0: ("train", 1.0)})
    with pytest.raises(VersionError, match="no branch 'nope'"):
        merge(connection, 1, into=("d", "nope"), author="tester")


def test_tags_move_only_on_purpose_and_remember(connection: duckdb.DuckDBPyConnection) -> None:
    put(connection, "d", {0: ("train", 1.0)})
    put(connection, "d", {2: ("train", 1.0)})
    set_tag(connection, 1, "gold", actor="ann")
    set_tag(connection, 1, "gold", actor="ann")  # already there: nothing to remember
    with pytest.raises(VersionError, match="is at d@v1 already; to move it add --move"):
        set_tag(connection, 2, "gold", actor="bob")
    assert resolve(connection, "d@gold") == 1
    set_tag(connection, 2, "gold", actor="bob", move=True)
    assert resolve(connection, "d@gold") == 2
    remove_tag(connection, dataset_id(connection, "d"), "gold", actor="eve")
    with pytest.raises(VersionError, match="'gold'"):
        resolve(connection, "d@gold")
    history = connection.sql('SELECT version_id, actor FROM tag_history ORDER BY "time"').fetchall()
    assert history == [(1, "ann"), (2, "bob"), (None, "eve")]
    with pytest.raises(VersionError, match="no tag 'gold'"):
        remove_tag(connection, 1, "gold", actor="eve")


def test_names_are_either_a_tag_or_a_branch(connection: duckdb.DuckDBPyConnection) -> None:
    put(connection, "d", {0: ("train", 1.0)})
    set_tag(connection, 1, "gold", actor="ann")
    with pytest.raises(VersionError, match="is a tag already"):
        start_branch(connection, 1, "gold")
    with pytest.raises(VersionError, match="is a branch already"):
        set_tag(connection, 1, "main", actor="ann")
    with pytest.raises(VersionError, match="exists already"):
        start_branch(connection, 1, "main")
    with pytest.raises(VersionError, match="read as a version number"):
        set_tag(connection, 1, "v7", actor="ann")


STATES = st.dictionaries(
    st.integers(0, 11), st.tuples(st.sampled_from([None, "train", "test"]), st.sampled_from([1.0, 2.0])), max_size=8
)
STEPS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(["main", "side", "third"]), STATES),
    st.tuples(
        st.just("merge"),
        st.sampled_from([("main", "side"), ("side", "main"), ("third", "main"), ("main", "third")]),
        st.sampled_from([None, "ours", "theirs"]),
    ),
)


class Model:
    """Versions as full dictionaries with parents, branches as version ids: what the warehouse must agree with."""

    def __init__(self) -> None:
        self.state: dict[int, State] = {}
        self.parents: dict[int, list[int]] = {}
        self.heads: dict[str, int] = {}

    def add(self, branch: str, state: State, parents: list[int]) -> None:
        key = len(self.state) + 1
        self.state[key], self.parents[key], self.heads[branch] = state, parents, key

    def past(self, key: int) -> set[int]:
        return {key}.union(*(self.past(parent) for parent in self.parents[key]))

    def base(self, one: int, other: int) -> int:
        return max(self.past(one) & self.past(other))


@settings(max_examples=8, deadline=None)
@given(STATES, st.lists(STEPS, max_size=6))
def test_random_histories_agree_with_the_model(first: State, steps: list[tuple[str, object, object]]) -> None:
    _play(first, steps)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(STATES, st.lists(STEPS, max_size=12))
def test_many_random_histories_agree_with_the_model(first: State, steps: list[tuple[str, object, object]]) -> None:
    _play(first, steps)


def _play(first: State, steps: list[tuple[str, object, object]]) -> None:
    forget(SHARED)
    model = Model()
    put(SHARED, "d", first)
    model.add("main", first, [])
    for name in ("side", "third"):
        start_branch(SHARED, 1, name)
        model.heads[name] = 1
    for kind, what, how in steps:
        if kind == "commit":
            _commit_both(SHARED, model, what, how)  # type: ignore[arg-type]
        else:
            _merge_both(SHARED, model, *what, how)  # type: ignore[misc]
    for key, state in model.state.items():
        assert held(SHARED, get(SHARED, key)) == state
        for old, new in {(1, key), (key, max(model.state)), (key, max(key - 1, 1))}:
            expected = model_diff(model.state[old], model.state[new])
            found = diff(SHARED, old, new)
            assert {name: getattr(found, name) for name in expected} == expected
    _check_rows(SHARED, model, max(model.state))


def _commit_both(connection: duckdb.DuckDBPyConnection, model: Model, branch: str, state: State) -> None:
    head = model.heads[branch]
    put(connection, "d", state, branch=branch)
    if state != model.state[head]:
        model.add(branch, state, [head])


def _merge_both(connection: duckdb.DuckDBPyConnection, model: Model, into: str, other: str, prefer: str | None) -> None:
    ours, theirs = model.heads[into], model.heads[other]
    base = model.base(ours, theirs)
    expected = model_merge(model.state[base], model.state[ours], model.state[theirs], prefer)
    if base == theirs:
        expected = model.state[ours]
    elif base == ours:
        expected, model.heads[into] = model.state[theirs], theirs
    elif expected is None:
        with pytest.raises(VersionError, match="--ours or --theirs"):
            merge(connection, theirs, into=("d", into), author="tester")
        return
    else:
        model.add(into, expected, [ours, theirs])
    merged = merge(connection, theirs, into=("d", into), author="tester", prefer=prefer)  # type: ignore[arg-type]
    assert held(connection, merged) == expected


def _check_rows(connection: duckdb.DuckDBPyConnection, model: Model, last: int) -> None:
    """Playing the diff's rows on the first state gives the last."""
    state = dict(model.state[1])
    rows = diff_rows(connection, 1, last).to_pylist()
    for row in rows:
        if row["old_id"] is not None:
            assert state.pop(row["old_id"]) == (row["old_split"], row["old_weight"])
    state |= {row["new_id"]: (row["new_split"], row["new_weight"]) for row in rows if row["new_id"] is not None}
    assert state == model.state[last]
    assert all(row["old_id"] // 2 == row["new_id"] // 2 == row["unit_id"] for row in rows if row["what"] == "relabeled")
