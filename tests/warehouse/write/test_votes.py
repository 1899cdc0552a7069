"""Whose judgments count in which dataset."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rmkit.data.example import EXAMPLE_SCHEMA
from warehouse.lineage.lineage_text import row_text
from warehouse.lineage.why import why
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import commit, resolve
from warehouse.write.load import LabelScale, LoadReport, SourceInfo, load_units
from warehouse.write.rewrite import PARENT_ORDER, store_examples
from warehouse.write.units import REJECT_SCHEMA, UNIT_SCHEMA

Load = Callable[..., LoadReport]
Make = Callable[..., dict[str, Any]]
Warehouse = duckdb.DuckDBPyConnection


def vote(winner: int, rater: str = "h1") -> dict[str, Any]:
    return {"rater": rater, "ranks": [winner, 1 - winner]}


@pytest.fixture
def contrary(load: Load, make_unit: Make) -> None:
    """Datasets a and b hold one pair with opposite labels; a has another pair that b does not know."""
    for name, winner in (("a", 0), ("b", 1)):
        rows = [make_unit(1, "q", ["yes", "no"], vote(winner), meta=f'{{"from":"{name}"}}')]
        rows += [make_unit(2, "r", ["one", "two"], vote(0))] if name == "a" else []
        load(rows, sha=name * 64, dataset=name, name=name)


def table(connection: Warehouse, ref: str) -> list[dict[str, Any]]:
    rows = checkout(connection, resolve(connection, ref), votes=True).to_pylist()
    return [row for row in rows if '"q"' in row["prompt"]]


def best(row: dict[str, Any], scores: list[int | None]) -> str:
    """The text that ranks say is the better one."""
    return "yes" if "yes" in row["responses"][scores.index(0)] else "no"


@pytest.mark.usefixtures("contrary")
def test_each_dataset_sees_the_judgments_of_its_own_sources(connection: Warehouse) -> None:
    for name, winner in (("a", "yes"), ("b", "no")):
        [row] = table(connection, name)
        assert [vote["rater"] for vote in row["votes"]] == [f"{name}/h1"]
        assert best(row, row["votes"][0]["ranks"]) == best(row, row["ranks"]) == winner
        assert (row["source"], row["meta"]) == (name, f'{{"from":"{name}"}}')


@pytest.mark.usefixtures("contrary")
def test_why_shows_the_judgments_of_all(connection: Warehouse) -> None:
    [row] = table(connection, "b")
    [unit] = why(connection, row["unit"])["units"]
    judged = sorted((one["rater"], one["sources"]) for one in unit["judgments"])
    assert judged == [("a/h1", ["a"]), ("b/h1", ["b"])]
    assert [label["n_votes"] for label in unit["labels"]] == [1, 1]


@pytest.mark.usefixtures("contrary")
def test_a_dataset_made_of_two_has_the_votes_of_both(connection: Warehouse) -> None:
    a, b = (resolve(connection, name) for name in "ab")
    [example] = connection.execute("SELECT example_id FROM example ORDER BY example_id LIMIT 1").fetchall()
    connection.execute(
        "CREATE TEMP TABLE picked AS SELECT ?::BIGINT AS example_id, NULL AS split, 1.0 AS weight", example
    )
    commit(connection, "both", "picked", message="m", author="t", parents=[a, b])
    commit(connection, "copy", "picked", message="m", author="t", parents=[a])
    assert [len(row["votes"]) for ref in ("both", "copy") for row in table(connection, ref)] == [2, 1]


@pytest.mark.usefixtures("contrary")
def test_a_rewritten_text_inherits_the_votes_of_its_datasets_alone(connection: Warehouse) -> None:
    [row] = checkout(connection, resolve(connection, "b")).to_pylist()
    new = row | {"prompt": row["prompt"].replace('"q"', '"q, please"')}
    schema = EXAMPLE_SCHEMA.append(PARENT_ORDER)
    rows = store_examples(connection, pa.Table.from_pylist([new], schema=schema), run_id=uuid.uuid4())
    commit(connection, "tidy", rows, message="m", author="t", parents=[resolve(connection, "b")])
    [tidy] = checkout(connection, resolve(connection, "tidy"), votes=True).to_pylist()
    assert [vote["rater"] for vote in tidy["votes"]] == ["b/h1"]


def test_a_judgment_that_two_files_of_one_source_say_counts_in_both_datasets(
    connection: Warehouse, load: Load, make_unit: Make
) -> None:
    rows = [make_unit(1, "q", ["yes", "no"], vote(0), vote(1, "h2"))]
    load(rows, sha="a" * 64, dataset="first")
    load(rows, sha="a" * 64, dataset="again")
    load([make_unit(1, "q", ["yes", "no"], vote(1, "h2"), vote(1, "h2"))], sha="b" * 64, dataset="third")
    assert connection.execute("SELECT count(*) FROM judgment").fetchall() == [(3,)]  # the third's second vote is new
    raters = {
        ref: [one["rater"] for row in table(connection, ref) for one in row["votes"]]
        for ref in ("first", "again", "third")
    }
    assert {ref: sorted(names) for ref, names in raters.items()} == {
        "first": ["toy/h1", "toy/h2"],
        "again": ["toy/h1", "toy/h2"],
        "third": ["toy/h2", "toy/h2"],
    }


@pytest.mark.usefixtures("contrary")
def test_a_judgment_of_the_ledger_counts_wherever_its_unit_is(connection: Warehouse) -> None:
    connection.execute("INSERT INTO rater VALUES (9, 'ana', 'human')")
    connection.execute(
        "INSERT INTO judgment (event_id, unit_id, rater_id, ranks, verdict) "
        "SELECT uuid(), unit_id, 9, [0, 1], 'ok' FROM unit ORDER BY unit_id LIMIT 1"
    ).fetchall()
    raters = [sorted(one["rater"] for one in row["votes"]) for ref in "ab" for row in table(connection, ref)]
    assert raters == [["a/h1", "ana"], ["ana", "b/h1"]]


def test_what_an_item_says_beside_its_texts_is_stored_with_the_unit(
    connection: Warehouse, load: Load, make_unit: Make
) -> None:
    facts = {"tools": '[{"name":"add"}]', "reference": "72", "rubric": '[{"criterion":"is right"}]'}
    plain = make_unit(1, "q", ["yes", "no"])
    stepped = make_unit(2, "q", ["yes", "no"]) | {"kind": "pair"}
    stepped["responses"][1]["step_ends"] = [1, 2]
    load([plain, make_unit(3, "q", ["yes", "no"], **facts), stepped])
    rows = checkout(connection, resolve(connection, "toy")).to_pylist()
    told = {row["reference"]: row for row in rows if row["step_ends"] is None}
    assert {key: [row[name] for name in facts] for key, row in told.items()} == {
        None: [None, None, None],
        "72": list(facts.values()),
    }
    [row] = [row for row in rows if row["step_ends"]]
    ends = zip(row["responses"], row["step_ends"], strict=True)
    assert {"no" in text: own for text, own in ends} == {True: [1, 2], False: []}
    assert len({row["unit"] for row in rows}) == 3
    again = store_examples(connection, pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), run_id=uuid.uuid4())
    assert connection.execute(f"SELECT count(*) FROM {again}").fetchall() == [(3,)]
    assert connection.execute("SELECT count(*) FROM unit").fetchall() == [(3,)]  # a frame gives the same units back


def test_the_scale_of_a_source_is_shown(connection: Warehouse, make_unit: Make) -> None:
    scales = (
        LabelScale(aspect="helpful", low=1, high=5),
        LabelScale(low=0, high=3, levels=("a", "b"), higher_is_better=False),
    )
    source = SourceInfo(name="s", path="p", format="f", file_sha256="0" * 64, scales=scales)
    batch = pa.RecordBatch.from_pylist([make_unit(1, "q", ["yes", "no"])], schema=UNIT_SCHEMA)
    load_units(
        connection, source, [batch], rejects=REJECT_SCHEMA.empty_table, dataset="s", author="t", n_lines=lambda: 1
    )
    [row] = checkout(connection, resolve(connection, "s")).to_pylist()
    text = row_text({**why(connection, row["unit"])})
    assert "helpful from 1 to 5" in text
    assert "strength from 3 to 0 (a, b)" in text
