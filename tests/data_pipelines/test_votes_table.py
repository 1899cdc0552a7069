"""A table with one row per vote: nothing of it is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import Reading, ingest
from data_pipelines.sources.unit_builder import moment
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

VOTES = """id,prompt,response_a,response_b,preference,rater
1,What is 2+2?,It is four.,It is five.,a,ann
1,What is 2+2?,It is four.,It is five.,b,bob
1,What is 2+2?,It is five.,It is four.,a,cyd
2,Name a fruit.,A stone.,An apple.,b,ann
2,Name a fruit.,A stone.,An apple.,b,bob
2,Name a fruit.,A stone.,A pear.,b,bob
"""


def stored(ref: str) -> list[dict[str, Any]]:
    with open_warehouse(read_only=True) as connection:
        return checkout(connection, resolve(connection, ref), votes=True).to_pylist()


def p_of(text: str) -> tuple[float, int]:
    """p of the response with this text, and the votes of its row."""
    for row in stored("votes"):
        texts = [json.loads(answer)[0]["content"] for answer in row["responses"]]
        if text in texts:
            return round(row["p"][texts.index(text)], 6), row["n_votes"]
    raise AssertionError(text)


def test_votes_that_share_an_id_unite(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(VOTES)
    report = ingest(path)
    assert (report.n_lines, report.n_accepted, report.n_rejected) == (6, 5, 1)  # other texts under id 2 are no vote
    assert p_of("It is four.") == (0.333333, 3)
    assert p_of("An apple.") == (1, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_pairs_with_a_rater_are_votes_whoever_comes_first(home: Path, tmp_path: Path, order: int) -> None:
    rows = [("four", "five", "ann"), ("four", "five", "bob"), ("five", "four", "cyd")][::order]
    path = tmp_path / "votes.jsonl"
    names = ("chosen", "rejected", "rater")
    path.write_text(
        "".join(json.dumps({"id": "1", "prompt": "2+2?"} | dict(zip(names, row, strict=True))) + "\n" for row in rows)
    )
    report = ingest(path, reading=Reading(format="generic"))
    assert report.n_rejected == 0
    assert p_of("four") == (0.666667, 3)


def test_every_rating_of_one_reply_is_stored(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("id,prompt,response,score,rater\n" + "".join(f"0,Q?,An answer.,{n},r{n}\n" for n in (1, 2, 6)))
    assert ingest(path).n_rejected == 0
    [row] = stored("votes")
    assert (row["n_votes"], [score["value"] for score in row["scores"]]) == (3, [3.0])
    assert sorted(vote["scores"][0]["value"] for vote in row["votes"]) == [1, 2, 6]


def test_nobody_is_a_person_unless_something_says_so(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text(
        '{"prompt":"2+2?","response_a":"4","response_b":"5","preference":"a","rater":"gpt-x"}\n'
        '{"prompt":"2+2?","response_a":"4","response_b":"5","preference":"a","rater":"ann"}\n'
        '{"prompt":"2+2?","response_a":"4","response_b":"5","preference":"b"}\n'
        '{"prompt":"2+2?","response_a":"4","response_b":"5","preference":"b","rater":"bob","rater_kind":"human"}\n'
    )
    ingest(path, reading=Reading(format="generic", rater="gpt-x:llm"))
    [row] = stored("votes")
    assert {vote["rater"]: vote["rater_kind"] for vote in row["votes"]} == {
        "votes/gpt-x": "llm",  # also where no rater is named: that is what --rater says
        "votes/ann": "unknown",
        "votes/bob": "human",
    }


def test_times_of_the_file_decide_which_answer_of_a_rater_counts(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    row = {"prompt": "2+2?", "response_a": "4", "response_b": "5", "rater": "ann"}
    answers = [("b", 1767225600), ("a", "2026-01-01T09:00:00+02:00"), ("b", "2026-01-01 06:59:59")]
    path.write_text("".join(json.dumps(row | {"preference": p, "time": t}) + "\n" for p, t in answers))
    report = ingest(path, reading=Reading(format="generic"))
    assert (report.n_replaced_judgments, p_of("4")) == (2, (1, 1))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-01-02", "2026-01-02T00:00:00+00:00"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02 03:04:05 UTC", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05.250+02:00", "2026-01-02T01:04:05.250000+00:00"),
        (1767323045, "2026-01-02T03:04:05+00:00"),
        ("1767323045000", "2026-01-02T03:04:05+00:00"),
        (1767323045250000, "2026-01-02T03:04:05.250000+00:00"),
        ("03/04/2026", None),
        (12, None),
        (True, None),
        ("soon", None),
        (None, None),
    ],
)
def test_moment(value: Any, shown: str | None) -> None:
    time = moment(value)
    assert (time and time.isoformat()) == shown
