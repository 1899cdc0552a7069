"""One rater's second answer, and who a rater is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb

from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve
from warehouse.write.load import LoadReport

Load = Callable[..., LoadReport]
Make = Callable[..., dict[str, Any]]
Warehouse = duckdb.DuckDBPyConnection


def at(hour: int) -> datetime:
    return datetime(2026, 3, 1, hour, tzinfo=UTC)


def vote(winner: int, rater: str, **more: Any) -> dict[str, Any]:
    return {"rater": rater, "ranks": [winner, 1 - winner]} | more


def row(connection: Warehouse, ref: str = "toy") -> dict[str, Any]:
    [only] = checkout(connection, resolve(connection, ref), votes=True).to_pylist()
    return only


def p_yes(only: dict[str, Any]) -> float:
    """The probability of the response "yes", wherever its hash put it."""
    [place] = [at for at, text in enumerate(only["responses"]) if "yes" in text]
    return float(only["p"][place])


def votes_for_yes(only: dict[str, Any]) -> list[tuple[str, int]]:
    [place] = [at for at, text in enumerate(only["responses"]) if "yes" in text]
    return sorted((one["rater"], int(one["ranks"][place] == 0)) for one in only["votes"])


def test_the_newest_answer_of_a_rater_counts(connection: Warehouse, load: Load, make_unit: Make) -> None:
    report = load(
        [
            make_unit(1, "q", ["yes", "no"], vote(0, "ann", time=at(9)), vote(1, "bob", time=at(9))),
            make_unit(2, "q", ["no", "yes"], vote(0, "ann", time=at(11))),  # ann now says no
            make_unit(3, "q", ["yes", "no"], vote(1, "cyd")),
            make_unit(4, "q", ["yes", "no"], vote(0, "ann", time=at(10))),
        ]
    )
    assert (report.n_replaced_judgments, report.n_repeated_judgments) == (2, 0)
    only = row(connection)
    assert votes_for_yes(only) == [("toy/ann", 0), ("toy/bob", 0), ("toy/cyd", 0)]
    assert (p_yes(only), only["n_votes"]) == (0, 3)
    assert connection.execute("SELECT count(*) FROM judgment").fetchall() == [(5,)]  # all are known


def test_answers_that_no_time_orders_both_count(connection: Warehouse, load: Load, make_unit: Make) -> None:
    report = load(
        [
            make_unit(1, "q", ["yes", "no"], vote(0, "ann"), vote(0, "bob", time=at(9))),
            make_unit(2, "q", ["yes", "no"], vote(1, "ann", time=at(9)), vote(1, "bob", time=at(9))),
        ]
    )
    assert (report.n_replaced_judgments, report.n_repeated_judgments) == (0, 2)
    only = row(connection)
    assert (p_yes(only), only["n_votes"], len(only["votes"])) == (0.5, 4, 4)


def test_unnamed_raters_are_many(connection: Warehouse, load: Load, make_unit: Make) -> None:
    votes = [vote(0, "unstated", time=at(8)), vote(1, "unstated", time=at(9)), vote(1, "unstated", time=at(10))]
    report = load([make_unit(line, "q", ["yes", "no"], one) for line, one in enumerate(votes, 1)])
    assert (report.n_replaced_judgments, report.n_repeated_judgments) == (0, 0)
    assert round(p_yes(row(connection)), 6) == round(1 / 3, 6)


def test_another_question_replaces_nothing(connection: Warehouse, load: Load, make_unit: Make) -> None:
    def score(aspect: str, value: float, hour: int) -> dict[str, Any]:
        return {
            "rater": "ann",
            "scores": [{"response": 0, "aspect": aspect, "value": value}],
            "time": at(hour),
        }

    report = load(
        [make_unit(1, "q", ["yes"], score("clarity", 1, 8), score("truth", 5, 9), score("clarity", 3, 10))],
    )
    assert report.n_replaced_judgments == 1
    assert {s["aspect"]: s["value"] for s in row(connection)["scores"]} == {"clarity": 3, "truth": 5}


def test_a_later_file_does_not_change_what_an_earlier_dataset_says(
    connection: Warehouse, load: Load, make_unit: Make
) -> None:
    load([make_unit(1, "q", ["yes", "no"], vote(0, "ann", time=at(9)))], sha="a" * 64, dataset="early")
    load([make_unit(1, "q", ["yes", "no"], vote(1, "ann", time=at(10)))], sha="b" * 64, dataset="late")
    assert [votes_for_yes(row(connection, ref)) for ref in ("early", "late")] == [[("toy/ann", 1)], [("toy/ann", 0)]]


def test_facts_of_a_judgment_are_stored(connection: Warehouse, load: Load, make_unit: Make) -> None:
    facts = {"time": at(9), "confidence": 0.5, "active_ms": 1200, "column_order": [1, 0], "shown_order": [0, 1]}
    load([make_unit(1, "q", ["yes", "no"], vote(0, "ann", **facts))])
    [(time, confidence, active_ms)] = connection.execute("SELECT time, confidence, active_ms FROM judgment").fetchall()
    assert (time.astimezone(UTC), confidence, active_ms) == (at(9), 0.5, 1200)
    only = row(connection)
    [one] = only["votes"]
    texts = [json.loads(text)[0]["content"] for text in only["responses"]]
    assert [texts[spot] for spot in one["column_order"]] == ["no", "yes"]
    assert [texts[spot] for spot in one["shown_order"]] == ["yes", "no"]


def kinds(connection: Warehouse) -> dict[str, str]:
    return dict(connection.execute("SELECT name, kind FROM rater").fetchall())


def test_an_unknown_rater_becomes_known(connection: Warehouse, load: Load, make_unit: Make) -> None:
    load([make_unit(1, "q", ["yes", "no"], vote(0, "gpt", rater_kind="unknown"))], sha="a" * 64)
    assert kinds(connection) == {"toy/gpt": "unknown"}
    load([make_unit(1, "q", ["yes", "no"], vote(0, "gpt", rater_kind="llm"))], sha="b" * 64)
    assert kinds(connection) == {"toy/gpt": "llm"}
    load([make_unit(1, "q", ["yes", "no"], vote(1, "gpt", rater_kind="unknown"))], sha="c" * 64)
    assert kinds(connection) == {"toy/gpt": "llm"}


def test_raters_of_two_kinds_are_two(connection: Warehouse, load: Load, make_unit: Make) -> None:
    votes = [vote(0, "unstated", rater_kind="human"), vote(1, "unstated", rater_kind="llm")]
    load([make_unit(1, "q", ["yes", "no"], *votes)])
    load([make_unit(1, "q", ["yes", "no"], vote(1, "unstated", rater_kind="rm"))], sha="b" * 64, dataset="other")
    names = {"toy/unstated": "human", "toy/unstated (llm)": "llm", "toy/unstated (rm)": "rm"}
    assert kinds(connection) == names
    assert votes_for_yes(row(connection)) == [("toy/unstated", 1), ("toy/unstated (llm)", 0)]
    assert votes_for_yes(row(connection, "other")) == [("toy/unstated (rm)", 0)]
