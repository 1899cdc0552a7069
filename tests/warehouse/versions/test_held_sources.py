"""An export reports the facts of the dataset that is exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from rmkit.data.example import read_manifest
from warehouse.out.export import export_version
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import commit, resolve
from warehouse.write.load import LoadReport

Load = Callable[..., LoadReport]
Make = Callable[..., dict[str, Any]]
Warehouse = duckdb.DuckDBPyConnection


def row_of(connection: Warehouse, ref: str) -> dict[str, Any]:
    [row] = checkout(connection, resolve(connection, ref), votes=True).to_pylist()
    return row


def unit(make_unit: Make, author: str, score: float, rater: str) -> dict[str, Any]:
    scores = [{"response": at, "aspect": "clear", "value": score + at} for at in (0, 1)]
    vote = {"rater": rater, "ranks": [0, 1], "scores": scores}
    meta = f'{{"from":"{author}"}}'
    return make_unit(1, "q", ["yes", "no"], vote, generators=[f"{author}-1", f"{author}-2"], meta=meta)


def facts(row: dict[str, Any]) -> dict[str, Any]:
    place = next(at for at, text in enumerate(row["responses"]) if "yes" in text)
    clear = next(one["value"] for one in row["scores"] if one["response"] == place)
    return {
        "source": row["source"],
        "meta": row["meta"],
        "yes by": row["generators"][place],
        "clear": clear,
        "raters": [vote["rater"] for vote in row["votes"]],
    }


A = {"source": "a", "meta": '{"from":"ann"}', "yes by": "ann-1", "clear": 1, "raters": ["a/h1"]}
B = {"source": "b", "meta": '{"from":"bob"}', "yes by": "bob-1", "clear": 3, "raters": ["b/h2"]}


def test_a_pair_of_two_datasets_shows_the_facts_of_each(
    connection: Warehouse, load: Load, make_unit: Make, tmp_path: Path
) -> None:
    load([unit(make_unit, "ann", 1, "h1")], sha="a" * 64, dataset="first", name="a", license="CC-BY-NC-4.0")
    load([unit(make_unit, "bob", 3, "h2")], sha="b" * 64, dataset="second", name="b", license="MIT")
    assert (facts(row_of(connection, "first")), facts(row_of(connection, "second"))) == (A, B)
    folder = export_version(connection, resolve(connection, "second"), tmp_path / "out")
    manifest = read_manifest(folder)
    assert [(source["name"], source["rows"]) for source in manifest["sources"]] == [("b", 1)]
    assert manifest["stated_licenses"] == {"CC-BY-NC-4.0": 1, "MIT": 1}  # the text is bound by both
    assert row_of(connection, "second")["license"] == "CC-BY-NC-4.0"


def test_a_new_revision_shows_its_own_facts_and_the_old_one_keeps_its(
    connection: Warehouse, load: Load, make_unit: Make
) -> None:
    load([unit(make_unit, "ann", 1, "h1")], sha="a" * 64, name="a")
    load([unit(make_unit, "bob", 3, "h2")], sha="b" * 64, name="b")
    assert (facts(row_of(connection, "toy@v1")), facts(row_of(connection, "toy@v2"))) == (A, B)
    example = connection.execute("SELECT example_id FROM delta WHERE version_id = 2 AND op = 1").fetchall()[0]
    connection.execute(
        "CREATE TEMP TABLE picked AS SELECT ?::BIGINT AS example_id, NULL AS split, 2.0 AS weight", example
    )
    commit(connection, "made", "picked", message="m", author="t", parents=[resolve(connection, "toy@v2")])
    assert facts(row_of(connection, "made")) == B


def test_a_file_that_says_the_same_rows_belongs_to_the_version_they_are(
    connection: Warehouse, load: Load, make_unit: Make
) -> None:
    load([unit(make_unit, "ann", 1, "h1")], sha="a" * 64, name="a")
    load([unit(make_unit, "bob", 1, "h2")], sha="b" * 64, name="b")  # equal label: no new version
    row = row_of(connection, "toy")
    assert (row["source"], sorted(vote["rater"] for vote in row["votes"])) == ("a", ["a/h1", "b/h2"])
