"""What steps make of examples: same rows keep their ids, new text keeps its lineage, labels follow the hash order."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.errors import DataError
from rmkit.ids import assistant_message, content_hash, user_message
from warehouse.safety.erase import erase
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import commit
from warehouse.write.load import LoadReport, store_examples

Make = Callable[..., dict[str, Any]]
Load = Callable[..., LoadReport]
RUN = uuid.UUID(int=1)


@pytest.fixture
def rows(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> list[dict[str, Any]]:
    scores = [{"response": at, "aspect": "q", "value": float(at)} for at in range(3)]
    won = {"rater": "h", "ranks": [0, 1, 2], "scores": scores}
    load(
        [
            make_unit(1, "one", ["x", "y", "z"], won, generators=["gx", "gy", "gz"], license="mit", subset="s"),
            make_unit(2, "two", ["x", "y", "w"], won),
        ]
    )
    return checkout(connection, 1).to_pylist()


def store(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> list[tuple[int, str | None, float]]:
    name = store_examples(connection, pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), run_id=RUN)
    return connection.sql(f"SELECT example_id, split, weight FROM {name} ORDER BY 1").fetchall()


def by_text(row: dict[str, Any], column: str) -> dict[str, Any]:
    return dict(zip(row["responses"], row[column], strict=True))


def test_unchanged_rows_keep_their_ids(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row |= {"split": "dev", "weight": 0.5}
    assert store(connection, rows) == [(1, "dev", 0.5), (2, "dev", 0.5)]
    assert connection.sql("SELECT count(*) FROM example").fetchall() == [(2,)]
    assert connection.sql("SELECT count(*) FROM unit_source").fetchall() == [(2,)]


def test_changed_text_is_a_child_with_its_parents_origins_and_label(
    connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]
) -> None:
    old = next(row for row in rows if row["prompt"] == user_message("one"))
    renamed = {
        assistant_message(a): assistant_message(b) for a, b in zip("xyz", ("one x", "one y!", "z?"), strict=True)
    }
    new = old | {"responses": [renamed[text] for text in old["responses"]]}
    assert sorted(new["responses"], key=content_hash) != new["responses"], "the test needs texts that change the order"
    store(connection, [new])
    commit(connection, "toy", "stored_rows", message="rewritten", author="t")
    (got,) = checkout(connection, 2).to_pylist()
    assert got["responses"] == sorted(new["responses"], key=content_hash)
    for column in ("p", "ranks", "generators"):
        assert by_text(got, column) == {renamed[text]: value for text, value in by_text(old, column).items()}
    values = {got["responses"][s["response"]]: s["value"] for s in got["scores"]}
    assert values == {renamed[assistant_message(text)]: float(at) for at, text in enumerate("xyz")}
    assert {got[name] for name in ("license", "subset", "source")} == {"mit", "s", "toy"}
    parent = "SELECT p.h FROM unit u JOIN unit p ON p.unit_id = u.parent_unit_id"
    assert connection.sql(parent).fetchall() == [(uuid.UUID(old["unit"]),)]
    assert got["id"] != old["id"]


def test_a_new_label_is_a_new_example_of_the_same_unit(
    connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]
) -> None:
    label = {"p": [0.2, 0.3, 0.5], "method": "dawid-skene", "n_votes": 7}
    assert [example for example, _, _ in store(connection, [rows[0] | label])] == [3]
    found = connection.sql(
        "SELECT p, method, n_votes, u.h FROM example JOIN unit u USING (unit_id) WHERE example_id = 3"
    )
    assert found.fetchall() == [([0.2, 0.3, 0.5], "dawid-skene", 7, uuid.UUID(rows[0]["unit"]))]
    assert [example for example, _, _ in store(connection, [rows[0] | label])] == [3]


def test_families_reach_the_prompts(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    store(connection, [row | {"family": 1} for row in rows])
    assert connection.sql("SELECT DISTINCT family_id FROM prompt").fetchall() == [(1,)]


def test_rows_that_became_equal_are_refused(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    same = [rows[0] | {"prompt": user_message("same")}, rows[0] | {"prompt": user_message("same")}]
    with pytest.raises(DataError, match="1 rows equal another row"):
        store(connection, same)


def test_a_frame_read_before_an_erasure_is_refused(
    connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]
) -> None:
    erase(connection, content_hash(user_message("one")), reason="r", actor="a")
    with pytest.raises(DataError, match="1 rows hold text that was erased"):
        store(connection, rows)
