"""rmkit why: every fact about a row in one answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rmkit.cli import main as cli
from rmkit.cli.display import emit
from rmkit.errors import UsageError
from rmkit.ids import assistant_message, content_hash, user_message
from warehouse.lineage.lineage_text import _labels, ranking, row_text
from warehouse.lineage.preview import shorten
from warehouse.lineage.why import find, why
from warehouse.versions.branches import set_tag
from warehouse.versions.versions import commit
from warehouse.write.load import LoadReport

RUN = uuid.UUID(int=7)


@pytest.fixture
def warehouse_file(home: Path) -> Path:
    return home / "warehouse.duckdb"


@pytest.fixture
def told(
    connection: duckdb.DuckDBPyConnection, load: Callable[..., LoadReport], make_unit: Callable[..., dict[str, Any]]
) -> duckdb.DuckDBPyConnection:
    """toy@v1 with rows r-1 (judged twice, once superseded) and r-2; toy@v2 after a recipe that dropped r-2."""
    first = {"rater": "ann", "ranks": [0, 1], "shown_order": [1, 0], "rationale": "it answers the question"}
    load(
        [
            make_unit(11, "why is the sky blue", ["scattering", "paint"], first, generators=["gpt", None],
                      source_row="r-1", split="train"),
            make_unit(12, "second", ["x", "y"], {"rater": "bob", "ranks": [0, 0]}, source_row="r-2", split="train"),
        ],
        license="MIT", url="https://example.org", revision="r9",
    )  # fmt: skip
    _supersede(connection)
    insert = "INSERT INTO run VALUES (?, 'recipe', 'clean', '{}', NULL, '{}', 'done', now(), now())"
    connection.execute(insert, [RUN]).fetchall()
    for number, step in enumerate(["normalize", "quality", "split"], 1):
        values = [RUN, number, step]
        connection.execute("INSERT INTO step_result VALUES (?, ?, ?, '{}', 2, 1, 1, 0.1, NULL)", values).fetchall()
    (keep,), (drop,) = connection.sql(
        "SELECT e.example_id FROM example e JOIN unit_source s USING (unit_id) ORDER BY s.source_row"
    ).fetchall()
    connection.execute("INSERT INTO step_drop VALUES (?, 2, ?, 'tie', 'p=0.5')", [RUN, drop]).fetchall()
    rows = f"(SELECT {keep} AS example_id, 'test' AS split, 2.0 AS weight)"
    commit(connection, "toy", rows, message="cleaned", author="tester", run_id=RUN)
    set_tag(connection, 2, "gold", actor="tester")
    return connection


def _supersede(connection: duckdb.DuckDBPyConnection) -> None:
    ((event, unit_id, rater_id),) = connection.sql(
        "SELECT event_id, unit_id, rater_id FROM judgment WHERE rationale IS NOT NULL"
    ).fetchall()
    connection.execute(
        "INSERT INTO judgment (event_id, unit_id, rater_id, ranks, verdict, supersedes, shown_order, confidence, "
        "active_ms, \"time\") VALUES (?, ?, ?, [0, 0], 'ok', ?, [0, 1], 0.25, 1500, '2026-02-03 04:05:06Z')",
        [uuid.UUID(int=1), unit_id, rater_id, event],
    ).fetchall()


def test_one_answer_holds_everything(told: duckdb.DuckDBPyConnection) -> None:
    facts = why(told, "r-1")
    (unit,) = facts["units"]
    texts = sorted([assistant_message("scattering"), assistant_message("paint")], key=content_hash)
    good = texts.index(assistant_message("scattering"))
    assert [response["messages"] for response in unit["responses"]] == texts
    assert [[one["model"] for one in response["writers"]] for response in unit["responses"]] == [
        ["gpt"] if place == good else [] for place in (0, 1)
    ]
    (source,) = facts["sources"]
    assert (source["line"], source["row"], source["license"], source["url"], source["revision"]) == (
        11, "r-1", "MIT", "https://example.org", "r9",
    )  # fmt: skip
    by_event = {judgment["event"]: judgment for judgment in unit["judgments"]}
    newer = by_event.pop(uuid.UUID(int=1))
    (older,) = by_event.values()
    assert older["superseded_by"] == newer["event"]
    assert newer["superseded_by"] is None
    assert older["rater"] == "toy/ann"
    assert older["shown_order"] == ([2, 1] if good == 0 else [1, 2])  # paint was shown first
    assert older["ranks"][good] == 0
    assert [(one["ref"], one["split"], one["weight"], one["tags"], one["branches"]) for one in facts["versions"]] == [
        ("toy@v1", "train", 1.0, [], []),
        ("toy@v2", "test", 2.0, ["gold"], ["main"]),
    ]
    assert [(run["kind"], run["kept"]) for run in facts["runs"]] == [("ingest", True), ("recipe", True)]


def test_a_dropped_row_says_by_which_step_and_why(told: duckdb.DuckDBPyConnection) -> None:
    facts = why(told, "r-2")
    assert [one["ref"] for one in facts["versions"]] == ["toy@v1"]
    recipe = facts["runs"][-1]
    assert not recipe["kept"]
    (drop,) = recipe["steps"][1]["dropped"]
    assert (drop["reason"], drop["evidence"]) == ("tie", "p=0.5")
    lines = row_text(facts).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  recipe clean"))
    assert lines[at].endswith("dropped it")
    assert lines[at + 1].strip() == "1. normalize: kept"
    assert lines[at + 2].strip().startswith("2. quality: dropped example")
    assert lines[at + 2].endswith("tie [p=0.5]")
    assert not any("3. split" in line for line in lines)


def test_the_text_names_all_of_it(told: duckdb.DuckDBPyConnection) -> None:
    text = row_text(why(told, "r-1"))
    for piece in ("written by gpt", "written by: not recorded", "toy line 11, row r-1", "license MIT", "revision r9",
                  "toy/ann (human)", "because: it answers the question", "superseded by 00000000", "confidence 0.25",
                  "after 1.5 s", "2026-02-03 04:05:06", "1 = 2", "toy@v2", "tag gold", "branch main", "weight 2",
                  "recipe clean", "kept it"):  # fmt: skip
        assert piece in text, piece


@pytest.mark.parametrize(
    "part", ["example", "response", *(pytest.param(one, marks=pytest.mark.slow) for one in ("unit", "prompt"))]
)
def test_a_row_is_found_by_any_of_its_ids(told: duckdb.DuckDBPyConnection, part: str) -> None:
    expected = why(told, "r-1")
    unit = expected["units"][0]
    name = {
        "example": unit["labels"][0]["id"],
        "unit": unit["unit"],
        "prompt": content_hash(user_message("why is the sky blue")),
        "response": content_hash(assistant_message("paint")),
    }[part]
    for asked in (name, name[:10], name[:10].upper()):
        found = why(told, asked)
        assert found["matched"] == [part]
        assert {key: found[key] for key in ("units", "versions")} == {
            key: expected[key] for key in ("units", "versions")
        }


def test_rewritten_rows_are_one_story(told: duckdb.DuckDBPyConnection) -> None:
    (parent, prompt_id) = told.sql(
        "SELECT unit_id, prompt_id FROM unit JOIN unit_source USING (unit_id) WHERE source_row = 'r-1'"
    ).fetchall()[0]
    told.execute("INSERT INTO response VALUES (90, ?, ?)", [uuid.UUID(int=90), assistant_message("tidy")]).fetchall()
    told.execute(
        "INSERT INTO unit (unit_id, h, kind, prompt_id, resp_ids, parent_unit_id, parent_order) "
        "VALUES (91, ?, 'single', ?, [90], ?, [0])",
        [uuid.UUID(int=91), prompt_id, parent],
    ).fetchall()
    told.execute(
        "INSERT INTO unit_source SELECT * REPLACE (91 AS unit_id) FROM unit_source WHERE source_row = 'r-1'"
    ).fetchall()
    for name in ("r-1", uuid.UUID(int=91).hex):
        units = why(told, name)["units"]
        assert [unit["unit"] for unit in units][1:] == [uuid.UUID(int=91).hex]
        assert units[1]["rewritten_from"] == units[0]["unit"]
        assert "rewritten from" in row_text(why(told, name))


def test_a_name_that_fits_several_lists_them(
    told: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    told.execute("UPDATE unit_source SET source_row = 'same'").fetchall()
    found = why(told, "same")["matches"]
    assert {match["prompt"] for match in found} == {"why is the sky blue", "second"}
    told.close()
    assert cli.call("why", ["same"]) == 1
    text = capsys.readouterr().out
    assert text.splitlines()[0].startswith("same fits 2")
    assert "why is the sky blue" in text


def test_prefixes_are_bounded_on_both_sides(told: duckdb.DuckDBPyConnection) -> None:
    for number, h in enumerate(["abcdef00" + "0" * 24, "abcdefff" + "f" * 24, "abcdf000" + "0" * 24]):
        insert = "INSERT INTO response VALUES (?, ?, ?)"
        told.execute(insert, [100 + number, uuid.UUID(h), assistant_message(str(number))]).fetchall()
    assert [h[:8] for _, h, _ in find(told, "abcdef")] == ["abcdef00", "abcdefff"]
    assert why(told, "abcdef")["matches"][0]["prompt"] == "no unit uses it"


@pytest.mark.parametrize("row", ["nope", "abcde", "0" * 33, "ffffffffffff", ""])
def test_unknown_rows(told: duckdb.DuckDBPyConnection, row: str) -> None:
    with pytest.raises(UsageError, match=r"no row .*6 to 32 hex digits"):
        why(told, row)


def test_erased_text_says_so(told: duckdb.DuckDBPyConnection) -> None:
    h = uuid.UUID(content_hash(assistant_message("paint")))
    told.execute("UPDATE response SET messages = NULL WHERE h = ?", [h]).fetchall()
    told.execute("INSERT INTO tombstone VALUES (?, 'response', 'asked to', 'dpo', now())", [h]).fetchall()
    facts = why(told, "r-1")
    assert [one["reason"] for one in facts["erased"]] == ["asked to"]
    text = row_text(facts)
    assert "[erased]" in text
    assert "by dpo on" in text
    assert "paint" not in text


def test_scores_and_benchmark_items_are_shown(told: duckdb.DuckDBPyConnection) -> None:
    (prompt_id, resp_ids, h) = told.sql(
        "SELECT prompt_id, resp_ids, replace(u.h::VARCHAR, '-', '') FROM unit u "
        "JOIN unit_source USING (unit_id) WHERE source_row = 'r-1'"
    ).fetchall()[0]
    score = "INSERT INTO score VALUES (?, ?, ?, 'f00df00df00df00d', ?, NULL, NULL, ?)"
    told.execute(score, [RUN, prompt_id, resp_ids[1], 1.25, None]).fetchall()
    told.execute(score, [RUN, prompt_id, resp_ids[0], None, "too long"]).fetchall()
    item = "INSERT INTO eval_item VALUES (?, 'rmbench', 'h', ?, 'f00df00df00df00d', [1.0, 2.0], 0.25, NULL, NULL, NULL)"
    told.execute(item, [RUN, h]).fetchall()
    told.execute(item.replace("rmbench", "pairs"), [RUN, f"code/{h}:0:2"]).fetchall()  # a pair of a list, in its subset
    text = row_text(why(told, "r-1"))
    assert "response 1: unscored: too long" in text
    assert "response 2: 1.25" in text
    assert "rmbench item" in text
    assert "pairs item" in text


def test_the_command(told: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]) -> None:
    told.close()
    assert cli.call("why", ["r-1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["units"][0]["judgments"][0]["rater"] == "toy/ann"
    assert cli.call("why", ["r-1"]) == 0
    assert "why is the sky blue" in capsys.readouterr().out


def test_long_texts_are_shortened_unless_asked_for(
    connection: duckdb.DuckDBPyConnection, load: Callable[..., LoadReport], make_unit: Callable[..., dict[str, Any]]
) -> None:
    load([make_unit(1, "start " + "middle " * 200 + "end", ["a", "b"], source_row="long")])
    facts = why(connection, "long")
    assert row_text(facts).count("middle") < 60 < row_text(facts, full=True).count("middle")
    assert "in version" not in row_text(facts)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([0, 1], "1 > 2"), ([1, 0], "2 > 1"), ([0, 0], "1 = 2"), ([2, 0, None, 0], "2 = 4 > 1 (3 unranked)")],
)
def test_rankings_read_as_signs(ranks: list[int | None], text: str) -> None:
    assert ranking(ranks) == text


def test_shortening_keeps_both_ends() -> None:
    assert shorten("short  text\n here", 40) == "short text here"
    assert shorten("a" * 50 + "b" * 50, 20) == "a" * 10 + " … " + "b" * 7


def test_no_stored_text_colors_the_answer_or_adds_a_line_to_it(
    connection: duckdb.DuckDBPyConnection,
    load: Callable[..., LoadReport],
    make_unit: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Texts and names of a hostile file, whole and shortened, as text and as JSON."""
    vote = {"rater": "ann\x1b[8m", "ranks": [0, 1], "rationale": "fine\x1b[2J\r"}
    names = {"generators": ["gpt\nlabels\n  forged\x9b31m", None], "source_row": "r\u202e-1"}
    load([make_unit(11, "sky\x1b]0;x\x07 blue", ["a\x1b[31m\nb", "c"], vote, **names)], license="MIT")
    facts = why(connection, "r\u202e-1")
    for full in (False, True):
        text = row_text(facts, full=full)
        assert text.replace("\n", "").isprintable()
        assert "sky\\x1b]0;x\\x07 blue" in text
        assert "\nlabels\n  forged" not in text
    emit(facts, as_json=True)
    out = capsys.readouterr().out.removesuffix("\n")
    assert out.isprintable()
    assert json.loads(out)["row"] == "r\u202e-1"  # programs get it as it is


def test_the_first_wrong_step_is_shown_in_its_own_words() -> None:
    label = {"id": "ab12", "method": "tree_labels", "p": None, "ranks": None, "margin": None, "n_votes": 1}
    unit = {
        "responses": [{"messages": assistant_message("2 + 2 = 4\n4 + 1 = 6\n#### 6")}],
        "step_ends": [[10, 20, 26]],
        "labels": [label | {"step_labels": [1.0, 0.25, None]}],
    }
    _, steps, wrong = _labels(unit)
    assert steps == "    steps 1 0.25 ?"
    assert wrong == "    first wrong step 2 of 3: 4 + 1 = 6"
    for other in ([1.0, 0.5, 1.0], [1.0, -1.0, 0.0]):  # none is wrong; values of a search are no probabilities
        assert len(list(_labels(unit | {"labels": [label | {"step_labels": other}]}))) == 2
