"""Diffs by hand, row by row, and as a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rmkit.cli import main as cli
from rmkit.errors import StoreError, UsageError, VersionError
from tests.warehouse.states import empty_warehouse, forget, put
from warehouse.versions.diff import diff, diff_rows
from warehouse.write.load import LoadReport

SHARED = empty_warehouse()


@pytest.fixture
def two() -> duckdb.DuckDBPyConnection:
    """d@v1 and d@v2: 0 stays, 2 changes split, 4 is relabeled as 5, 6 leaves, 8 and 9 (one unit) come."""
    forget(SHARED)
    put(SHARED, "d", {0: ("train", 1.0), 2: ("train", 1.0), 4: ("train", 1.0), 6: ("test", 1.0)})
    put(SHARED, "d", {0: ("train", 1.0), 2: ("test", 1.0), 5: ("train", 2.0), 8: (None, 1.0), 9: (None, 1.0)})
    return SHARED


def test_counts(two: duckdb.DuckDBPyConnection) -> None:
    found = diff(two, 1, 2)
    assert (found.added, found.removed, found.relabeled, found.changed) == (2, 1, 1, 1)
    back = diff(two, 2, 1)
    assert (back.added, back.removed, back.relabeled, back.changed) == (1, 2, 1, 1)
    assert diff(two, 2, 2).empty
    assert not found.empty


def test_rows(two: duckdb.DuckDBPyConnection) -> None:
    rows = [tuple(row.values()) for row in diff_rows(two, 1, 2).to_pylist()]
    assert rows == [
        ("added", None, 8, 4, None, None, None, 1.0),
        ("added", None, 9, 4, None, None, None, 1.0),
        ("changed", 2, 2, 1, "train", "test", 1.0, 1.0),
        ("relabeled", 4, 5, 2, "train", "train", 1.0, 2.0),
        ("removed", 6, None, 3, "test", None, 1.0, None),
    ]
    assert [row["new_id"] or row["old_id"] for row in diff_rows(two, 1, 2, limit_per_kind=1).to_pylist()] == [
        8,
        2,
        5,
        6,
    ]


def test_a_row_that_changed_and_changed_back_did_not_change(two: duckdb.DuckDBPyConnection) -> None:
    put(two, "d", {0: ("train", 1.0), 2: ("train", 1.0), 5: ("train", 2.0), 8: (None, 1.0), 9: (None, 1.0)})
    assert diff(two, 1, 3).changed == 0
    assert diff(two, 2, 3).changed == 1


def test_a_row_that_left_and_came_back_differs_only_by_its_state(two: duckdb.DuckDBPyConnection) -> None:
    put(two, "d", {0: ("train", 1.0), 5: ("train", 2.0)})
    put(two, "d", {0: ("train", 3.0), 2: ("train", 1.0), 5: ("train", 2.0), 8: ("dev", 1.0), 9: (None, 1.0)})
    back = diff(two, 2, 4)  # 0 is weighed anew; 2 and 8 came back in another split, 9 as it was
    assert (back.added, back.removed, back.relabeled, back.changed) == (0, 0, 0, 3)
    whole = diff(two, 1, 4)  # 2 ended in the split it began in
    assert (whole.added, whole.removed, whole.relabeled, whole.changed) == (2, 1, 1, 1)


def test_versions_of_unrelated_datasets(two: duckdb.DuckDBPyConnection) -> None:
    put(two, "e", {0: ("train", 1.0), 2: ("dev", 1.0), 10: ("train", 1.0)})
    found = diff(two, 1, 3)
    assert (found.added, found.removed, found.relabeled, found.changed) == (1, 2, 0, 1)


def test_unknown_versions(two: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(VersionError, match="no version with id 9"):
        diff(two, 1, 9)


@pytest.fixture
def warehouse_file(home: Path) -> Path:
    return home / "warehouse.duckdb"


@pytest.fixture
def story(
    connection: duckdb.DuckDBPyConnection, load: Callable[..., LoadReport], make_unit: Callable[..., dict[str, Any]]
) -> None:
    """toy@v1 has prompts one and two, toy@v2 (a changed file) relabels two and adds three; the file is then closed."""
    win, lose = {"rater": "h", "ranks": [0, 1]}, {"rater": "h", "ranks": [1, 0]}
    load([make_unit(1, "one", ["a", "b"], win), make_unit(2, "two", ["a", "b"], win)])
    again = [make_unit(n, prompt, ["a", "b"], how) for n, (prompt, how) in enumerate([("one", win), ("two", lose)], 1)]
    load([*again, make_unit(3, "three", ["a", "b"], win)], sha="b" * 64)
    connection.close()


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.call(arguments[0], arguments[1:]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("story")
def test_the_diff_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = call(capsys, "diff", "toy@v1", "toy", "--rows", "5")
    assert text.splitlines()[0] == "toy@v1 -> toy@v2: 1 added, 0 removed, 1 relabeled, 0 changed"
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["+", "~"]
    assert "three" in text
    assert "p=1.00/0.00 (votes) -> " in text.replace("p=0.00/1.00 (votes) -> ", "p=1.00/0.00 (votes) -> ")
    result = json.loads(call(capsys, "diff", "toy@v1", "toy@v2", "--rows", "5", "--json"))
    assert (result["added"], result["relabeled"]) == (1, 1)
    assert {row["prompt"] for row in result["rows"]} == {"two", "three"}


@pytest.mark.usefixtures("story")
def test_the_commands_about_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "branch", "toy@v1", "side") == "toy@side starts at toy@v1\n"
    assert call(capsys, "branch", "toy") == "main  toy@v2\nside  toy@v1\n"
    assert call(capsys, "tag", "toy@v1", "gold") == "toy@gold is toy@v1\n"
    assert call(capsys, "merge", "toy@main", "--into", "toy@side").startswith(
        "toy@side is toy@v2, fast-forward (+1 -0 ~1"
    )
    assert call(capsys, "tag", "toy", "gold", "--move") == "toy@gold is toy@v2\n"
    history = json.loads(call(capsys, "datasets", "toy", "--json"))
    assert history["branches"] == {"main": "toy@v2", "side": "toy@v2"}
    assert [(one["number"], one["n_rows"], one["added"], one["removed"]) for one in history["versions"]] == [
        (2, 3, 2, 1),
        (1, 2, 2, 0),
    ]
    assert [one["number"] for one in history["tag_history"]] == [1, 2]
    listed = call(capsys, "datasets")
    assert "toy" in listed
    assert "main side" in listed
    assert "+2 -1 *0" in call(capsys, "datasets", "toy")
    assert call(capsys, "tag", "toy", "gold", "--remove") == "toy@gold removed\n"
    with pytest.raises(UsageError, match="expected NAME@BRANCH"):
        cli.call("merge", ["toy@main", "--into", "@x"])


@pytest.mark.usefixtures("home")
def test_no_warehouse_yet_says_what_to_do() -> None:
    with pytest.raises(StoreError, match="rmkit ingest FILE"):
        cli.call("datasets", [])


def test_an_empty_warehouse_says_what_to_do(
    connection: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    connection.close()
    assert "no datasets yet; bring data in with: rmkit ingest FILE" in call(capsys, "datasets")
