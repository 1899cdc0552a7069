"""Loading units: what is stored once, what is counted, what a second load changes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rmkit.errors import DataError
from rmkit.ids import assistant_message, content_hash, user_message
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.write import stage
from warehouse.write.identity import unit_hash
from warehouse.write.load import LoadReport, SourceInfo, load_units
from warehouse.write.units import REJECT_SCHEMA

Make = Callable[..., dict[str, Any]]
Load = Callable[..., LoadReport]
CONTENT_TABLES = ("source", "reject", "prompt", "response", "unit", "unit_source", "rater", "judgment", "example",
                  "dataset", "version", "delta", "run")  # fmt: skip


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.sql(sql).fetchall()


def counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return {table: rows(connection, f"SELECT count(*) FROM {table}")[0][0] for table in CONTENT_TABLES}


def sorted_texts(*texts: str) -> list[str]:
    return sorted((assistant_message(text) for text in texts), key=content_hash)


def test_responses_stand_in_hash_order_and_every_position_follows(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    texts = ["best", "middle", "worst", "also worst"]
    judgment = {
        "rater": "h1",
        "ranks": [0, 1, 2, 2],
        "shown_order": [3, 0, 2, 1],
        "scores": [{"response": 2, "aspect": "tone", "value": 1.5}, {"response": 0, "aspect": "tone", "value": 4.0}],
    }
    load([make_unit(1, "p", texts, judgment, generators=["gb", "gm", None, "gw"])])
    expected = sorted_texts(*texts)
    (stored,) = rows(
        connection,
        "SELECT list(r.messages ORDER BY nth) "
        "FROM (SELECT unnest(resp_ids) AS id, unnest(range(4)) AS nth FROM unit) a "
        "JOIN response r ON r.resp_id = a.id",
    )[0]
    assert stored == expected
    new = [expected.index(assistant_message(text)) for text in texts]  # new position of each text
    assert new != [0, 1, 2, 3], "the test needs texts whose hash order differs from their given order"
    ((ranks, shown, scores),) = rows(connection, "SELECT ranks, shown_order, scores FROM judgment")
    assert [ranks[at] for at in new] == [0, 1, 2, 2]
    assert shown == [new[3], new[0], new[2], new[1]]
    assert sorted((s["response"], s["value"]) for s in scores) == sorted([(new[2], 1.5), (new[0], 4.0)])
    models = dict(rows(connection, "SELECT gen_id, model FROM generator")) | {None: None}
    ((gen_ids,),) = rows(connection, "SELECT gen_ids FROM unit_source")
    generators = [models[gen_id] for gen_id in gen_ids]
    assert [generators[at] for at in new] == ["gb", "gm", None, "gw"]


def test_unit_hash_is_the_python_one(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> None:
    rubric = '[{"name":"é","weight":2}]'
    load(
        [
            make_unit(1, 'p\x01"\\ 😀', ["b", "a\n"], rubric=rubric),
            make_unit(2, "q", ["one\n\ntwo"], kind="steps", step_ends=[3, 8]),
        ]
    )
    pair = unit_hash(
        "pair", user_message('p\x01"\\ 😀'), responses=[assistant_message("a\n"), assistant_message("b")], rubric=rubric
    )
    steps = unit_hash("steps", user_message("q"), responses=[assistant_message("one\n\ntwo")], step_ends=[[3, 8]])
    assert rows(connection, "SELECT h FROM unit ORDER BY unit_id") == [(uuid.UUID(pair),), (uuid.UUID(steps),)]


def test_counts_and_repeats_within_a_file(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> None:
    won = {"rater": "h1", "ranks": [0, 1]}
    report = load(
        [make_unit(1, "p", ["x", "y"], won), make_unit(2, "p", ["y", "x"], {"rater": "h1", "ranks": [1, 0]})],
        [make_unit(4, "q", ["x", "z"], won), make_unit(4, "q", ["x", "y"], won), make_unit(5, "p", ["x", "y"], won)],
        rejects=[{"line": 3, "reason": "empty prompt"}, {"line": 4, "reason": "empty edit"}],
    )
    assert (report.n_lines, report.n_accepted, report.n_rejected) == (5, 4, 1)  # line 4 was used in part
    assert (report.n_units, report.n_new_units, report.n_duplicate_units) == (3, 3, 2)
    assert counts(connection) | {"run": 1} == {
        "source": 1, "reject": 2, "prompt": 2, "response": 3, "unit": 3, "unit_source": 5, "rater": 1, "judgment": 3,
        "example": 3, "dataset": 1, "version": 1, "delta": 3, "run": 1,
    }  # fmt: skip
    assert rows(connection, "SELECT name, kind FROM rater") == [("toy/h1", "human")]
    assert report.version is not None
    assert report.version.n_rows == 3
    assert rows(connection, "SELECT DISTINCT n_votes FROM example") == [(1,)]  # the same line twice is one vote


def test_chunk_boundaries_change_nothing(
    tmp_path: Path, load: Load, make_unit: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = [
        make_unit(
            i, f"p{i % 7}", [f"a{i % 5}", f"b{i % 3}"], {"rater": f"h{i % 2}", "ranks": [0, 1], "strength": i * 1.0}
        )
        for i in range(1, 9)
    ]

    def outcome(name: str) -> tuple[Any, ...]:
        with open_warehouse(tmp_path / name) as connection:
            report = load(*([unit] for unit in units), into=connection)
            assert report.version is not None
            return report.version.digest, counts(connection), rows(connection, "FROM unit ORDER BY unit_id")

    one = outcome("one.duckdb")
    monkeypatch.setattr(stage, "CHUNK_BYTES", 1)
    assert outcome("many.duckdb") == one


def test_same_file_again_changes_nothing(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> None:
    units = [make_unit(1, "p", ["x", "y"], {"rater": "h1", "ranks": [0, 1]}), make_unit(2, "p", ["x", "y"])]
    first = load(units)
    before = counts(connection)
    again = load(units)
    assert counts(connection) == before
    assert again.already_loaded
    assert not first.already_loaded
    assert again.version == first.version
    assert (again.n_units, again.n_new_units, again.n_duplicate_units) == (1, 0, 1)
    assert not load(units, dataset="other").already_loaded  # another dataset is another request
    assert counts(connection)["judgment"] == before["judgment"]


def test_changed_revision_is_the_next_version_of_exactly_its_rows(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    won, lost = {"rater": "h1", "ranks": [0, 1]}, {"rater": "h1", "ranks": [1, 0]}
    load(
        [
            make_unit(1, "kept", ["x", "y"], won),
            make_unit(2, "flips", ["x", "y"], won),
            make_unit(3, "goes", ["x", "y"]),
        ]
    )
    second = load(
        [
            make_unit(1, "flips", ["x", "y"], lost),
            make_unit(2, "kept", ["x", "y"], won),
            make_unit(3, "new", ["x", "y"]),
        ],
        sha="b" * 64,
    )
    assert second.version is not None
    assert (second.version.number, second.version.n_rows, second.n_new_units) == (2, 3, 1)
    table = checkout(connection, 2)
    prefers_x = {
        row["prompt"]: row["p"] and row["p"][row["responses"].index(assistant_message("x"))]
        for row in table.to_pylist()
    }
    assert prefers_x == {user_message("kept"): 1.0, user_message("flips"): 0.0, user_message("new"): None}
    assert counts(connection)["judgment"] == 3  # "kept" was not judged twice
    assert counts(connection)["response"] == 2


def test_another_source_sharing_the_text_adds_origins_not_text(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    unit = make_unit(1, "p", ["x", "y"], {"rater": "h1", "ranks": [0, 1]})
    load([unit])
    load([unit], sha="b" * 64, name="copy", dataset="copy")
    assert counts(connection)["unit"] == 1
    assert counts(connection)["unit_source"] == 2
    assert rows(connection, "SELECT name FROM rater ORDER BY rater_id") == [("toy/h1",), ("copy/h1",)]
    assert counts(connection)["example"] == 1  # the same label of the same unit


def test_lines_must_add_up_or_nothing_is_stored(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make
) -> None:
    with pytest.raises(DataError, match="lost lines: 3 read, 1 stored, 1 rejected"):
        load([make_unit(1, "p", ["x", "y"])], rejects=[{"line": 2, "reason": "empty"}], n_lines=3)
    assert set(counts(connection).values()) == {0}


def test_a_file_of_rejects_only_is_recorded_without_a_version(
    connection: duckdb.DuckDBPyConnection, load: Load
) -> None:
    report = load(rejects=[{"line": 1, "reason": "not JSON", "excerpt": "{"}])
    assert (report.version, report.n_accepted, report.n_rejected) == (None, 0, 1)
    assert rows(connection, "SELECT line, reason, excerpt FROM reject") == [(1, "not JSON", "{")]


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"kind": "trio"}, "kind"),
        ({"prompt": None}, "prompt"),
        ({"responses": [{"messages": None}]}, "responses"),
        ({"judgments": [{"rater_kind": "human", "ranks": [0, 1, 2]}]}, "ranks"),
        ({"judgments": [{"rater_kind": "human", "shown_order": [1, 1]}]}, "shown_order"),
        ({"judgments": [{"rater_kind": "human", "scores": [{"response": 2, "aspect": "a", "value": 1.0}]}]}, "scores"),
        ({"judgments": [{"rater": "h1"}]}, "rater_kind"),
        (
            {
                "responses": [{"messages": "[]", "step_ends": [1]}, {"messages": "[1]", "step_ends": [2]}],
                "judgments": [{"rater_kind": "human", "step_labels": [1.0]}],
            },
            "step_labels",
        ),
    ],
)
def test_a_broken_importer_is_named_and_nothing_is_stored(
    connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make, change: dict[str, Any], column: str
) -> None:
    with pytest.raises(DataError, match=f"line 7.*'{column}'"):
        load([make_unit(1, "fine", ["x", "y"]), make_unit(7, "p", ["x", "y"]) | change])
    assert set(counts(connection).values()) == {0}


def test_an_importer_that_fails_half_way_leaves_nothing(
    connection: duckdb.DuckDBPyConnection, make_unit: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warehouse.write.units import UNIT_SCHEMA

    def failing() -> Any:
        yield pa.RecordBatch.from_pylist([make_unit(1, "p", ["x", "y"])], schema=UNIT_SCHEMA)
        raise DataError("the file went away")

    monkeypatch.setattr(stage, "CHUNK_BYTES", 1)  # so that the first batch is stored before the second is asked for
    source = SourceInfo(name="toy", path="x", format="units", file_sha256="f" * 64)
    with pytest.raises(DataError, match="went away"):
        load_units(
            connection,
            source,
            failing(),
            rejects=REJECT_SCHEMA.empty_table,
            dataset="toy",
            author="t",
            n_lines=lambda: 2,
        )
    assert set(counts(connection).values()) == {0}
