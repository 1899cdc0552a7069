"""Checkout: columns, order, licenses, votes, erased rows; agreement with plain SQL."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.errors import UsageError, VersionError
from rmkit.ids import assistant_message, content_hash, user_message
from warehouse.versions import checkout as module
from warehouse.versions import dataset
from warehouse.versions.checkout import VOTES, checkout, erased
from warehouse.versions.stream import stream
from warehouse.versions.versions import get, resolve
from warehouse.write.load import LoadReport

Make = Callable[..., dict[str, Any]]
Load = Callable[..., LoadReport]


@pytest.fixture
def version_id(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> int:
    """Toy v1: a pair, a list of four, a single, from two raters, with generators, splits and ratings."""
    load(
        [
            make_unit(
                1, "pair", ["good", "bad"], {"rater": "h1", "ranks": [0, 1], "shown_order": [1, 0], "strength": 2.0},
                {"rater": "h2", "ranks": [1, 0]}, generators=["gpt", "llama"], split="train", subset="s1",
                meta='{"k":1}', source_row="row-1",
            ),
            make_unit(2, "list", ["a", "b", "c", "d"], {"rater": "h1", "ranks": [2, 0, 1, None]}, split="test"),
            make_unit(
                3, "single", ["only"], {"rater": "h1", "scores": [{"response": 0, "aspect": "tone", "value": 4.5}]},
                license="CC-BY-4.0",
            ),
        ],
        license="MIT",
    )  # fmt: skip
    return resolve(connection, "toy")


def row_of(table: pa.Table, prompt: str) -> dict[str, Any]:
    (found,) = [row for row in table.to_pylist() if row["prompt"] == user_message(prompt)]
    return found


def test_columns_types_and_order_are_the_examples(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    table = checkout(connection, version_id)
    assert table.schema.equals(EXAMPLE_SCHEMA)
    assert table.num_rows == 3
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    assert erased(table) == 0


def test_a_row_holds_what_was_loaded(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    row = row_of(checkout(connection, version_id), "pair")
    texts = sorted([assistant_message("good"), assistant_message("bad")], key=content_hash)
    good = texts.index(assistant_message("good"))
    assert row["responses"] == texts
    assert row["generators"] == (["gpt", "llama"] if good == 0 else ["llama", "gpt"])
    assert (row["kind"], row["source"], row["subset"], row["license"]) == ("pair", "toy", "s1", "MIT")
    assert (row["split"], row["weight"], row["n_votes"], row["p"]) == ("train", 1.0, 2, [0.5, 0.5])
    assert json.loads(row["meta"]) == {"k": 1}


def test_lists_and_singles_keep_their_lengths(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    table = checkout(connection, version_id)
    listed, single = row_of(table, "list"), row_of(table, "single")
    assert listed["responses"] == sorted(map(assistant_message, "abcd"), key=content_hash)
    assert [listed["responses"].index(assistant_message(text)) for text in "bca"] == [
        listed["ranks"].index(rank) for rank in (0, 1, 2)
    ]
    assert single["responses"] == [assistant_message("only")]
    assert single["scores"] == [{"response": 0, "aspect": "tone", "value": 4.5}]
    assert single["license"] == "CC-BY-4.0"  # the row's own beats the file's


def test_the_most_restrictive_license_wins(
    connection: duckdb.DuckDBPyConnection, version_id: int, load: Load, make_unit: Make
) -> None:
    again = make_unit(9, "pair", ["bad", "good"], {"rater": "h3", "ranks": [1, 0]}, source_row="other-9", subset="s2")
    load([again], sha="b" * 64, dataset="other", name="other", license="CC-BY-NC-4.0")
    row = row_of(checkout(connection, version_id), "pair")
    assert row["license"] == "CC-BY-NC-4.0"
    assert (row["source"], row["subset"]) == ("toy", "s1")  # the first source describes the row


def test_votes_are_the_valid_judgments(
    connection: duckdb.DuckDBPyConnection, version_id: int, load: Load, make_unit: Make
) -> None:
    (first,) = connection.sql(
        "SELECT event_id FROM judgment j JOIN rater r USING (rater_id) WHERE r.name = 'toy/h1' AND ranks = [0, 1] "
        "OR r.name = 'toy/h1' AND ranks = [1, 0]"
    ).fetchall()[0]
    unit_id, rater_id = connection.execute(
        "SELECT unit_id, rater_id FROM judgment WHERE event_id = ?", [first]
    ).fetchall()[0]
    insert = "INSERT INTO judgment (event_id, unit_id, rater_id, ranks, verdict, supersedes) VALUES (?, ?, ?, ?, ?, ?)"
    connection.execute(insert, [uuid.uuid4(), unit_id, rater_id, [0, 0], "ok", first]).fetchall()
    connection.execute(insert, [uuid.uuid4(), unit_id, rater_id, None, "skip", None]).fetchall()
    table = checkout(connection, version_id, votes=True)
    assert table.schema.names == [*EXAMPLE_SCHEMA.names, "votes"]
    assert table.schema.field("votes").type == VOTES.type
    votes = row_of(table, "pair")["votes"]
    assert sorted((vote["rater"], vote["ranks"]) for vote in votes if vote["rater"] == "toy/h1") == [("toy/h1", [0, 0])]
    assert len(votes) == 2
    (rating,) = row_of(table, "single")["votes"]
    assert rating["rater_kind"] == "human"
    assert rating["scores"] == [{"response": 0, "aspect": "tone", "value": 4.5}]


@pytest.mark.parametrize(("table", "text"), [("prompt", user_message("list")), ("response", assistant_message("c"))])
def test_rows_with_erased_text_are_left_out_and_counted(
    connection: duckdb.DuckDBPyConnection, version_id: int, table: str, text: str
) -> None:
    connection.execute(f"UPDATE {table} SET messages = NULL WHERE messages = ?", [text]).fetchall()
    out = checkout(connection, version_id)
    assert (out.num_rows, erased(out)) == (2, 1)
    assert user_message("list") not in out["prompt"].to_pylist()
    assert erased(checkout(connection, version_id, split="train")) == 0
    assert erased(checkout(connection, version_id, split="test", columns=["id"])) == 1


def test_splits_and_columns(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    whole = checkout(connection, version_id)
    test = checkout(connection, version_id, split="test", columns=["weight", "id", "prompt"])
    assert test.column_names == ["weight", "id", "prompt"]
    assert test["prompt"].to_pylist() == [user_message("list")]
    assert checkout(connection, version_id, columns=["id"])["id"].to_pylist() == whole["id"].to_pylist()
    assert checkout(connection, version_id, split="no such").num_rows == 0
    with pytest.raises(UsageError, match=r"no column textt; one of: id, unit"):
        checkout(connection, version_id, columns=["textt"])
    with pytest.raises(VersionError, match="no version with id 99"):
        checkout(connection, 99)


def test_few_texts_and_all_texts_are_read_alike(
    connection: duckdb.DuckDBPyConnection, version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkout(connection, version_id)
    monkeypatch.setattr(module, "FEW", 0)  # every version counts as few
    monkeypatch.setattr(module, "_BATCH_ROWS", 2)
    assert checkout(connection, version_id).equals(whole)


def test_a_dataset_of_a_version_holds_the_same_rows(
    connection: duckdb.DuckDBPyConnection, version_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(dataset, "open_warehouse", lambda **options: contextlib.nullcontext(connection))
    whole, data = checkout(connection, version_id), dataset.load_dataset("toy")
    assert (data.ref, data.digest) == ("toy@v1", get(connection, version_id).digest)
    assert data.to_polars()["id"].to_list() == whole["id"].to_pylist()
    assert data.to_hf().column_names == EXAMPLE_SCHEMA.names
    assert [json.dumps(turns) for turns in data.to_hf()["prompt"]] == [
        json.dumps([{"role": "user", "content": json.loads(text)[0]["content"]}])
        for text in whole["prompt"].to_pylist()
    ]
    trl = data.to_hf("trl")
    assert trl.num_rows == 3  # the pair is tied, the single has no pair, three of the list's four are ranked
    assert {row["prompt"][0]["content"] for row in trl} == {"list"}
    pairs = {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in trl}
    assert pairs == {("b", "c"), ("b", "a"), ("c", "a")}
    assert trl[0]["chosen"][0]["role"] == "assistant"
    assert [row["kind"] for row in dataset.load_dataset("toy", split="test").to_hf()] == ["list"]


@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_a_stream_gives_the_checkout_in_pieces(
    connection: duckdb.DuckDBPyConnection, version_id: int, rows: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.versions.stream.FEW", few)  # all texts are read, or those that are needed
    monkeypatch.setattr("warehouse.versions.stream.VOTED_ROWS", rows)  # whose lists of votes are made at once
    whole = checkout(connection, version_id, votes=True)
    pieces = list(stream(connection, version_id, votes=True, rows=rows))
    assert [piece.num_rows for piece in pieces] == [min(rows, 3 - at) for at in range(0, 3, rows)]
    assert pa.concat_tables(pieces).to_pylist() == whole.to_pylist()
    assert pieces[0].schema.equals(whole.schema)
    some = ["weight", "id", "prompt"]
    split = pa.concat_tables(stream(connection, version_id, split="test", columns=some, rows=rows))
    assert split.to_pylist() == checkout(connection, version_id, split="test", columns=some).to_pylist()
    assert list(stream(connection, version_id, split="no such")) == []
