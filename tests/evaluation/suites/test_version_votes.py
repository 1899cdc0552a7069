"""People's single votes out of a dataset version, for the suite `annotators`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipelines.ingest.command import ingest
from data_pipelines.ingest.reading import Reading
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite
from rmkit.errors import DataError, UsageError
from rmkit.ledger import open_ledger
from rmkit.types import Event
from warehouse.events.sync import sync
from warehouse.out.export import export_folder
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

SUITE = load_suite("annotators")


def test_votes_of_people_in_the_order_of_the_unit(home: Path, tmp_path: Path) -> None:
    lines = ["prompt,response_a,response_b,preference,annotator"]
    lines += [f"q1,good reply,bad reply,{winner},{who}" for who, winner in (("ida", "a"), ("jon", "a"), ("kim", "tie"))]
    lines += [f"q2,bad reply,good reply,{winner},{who}" for who, winner in (("ida", "b"), ("jon", "a"))]
    lines += [f"q{n},an answer to {n},another to {n},a,ida" for n in range(3, 9)]
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    ingest(tmp_path / "votes.csv", dataset="votes")
    loaded = load_items(SUITE, "votes:all")
    assert loaded.version is not None
    assert loaded.version["ref"] == "votes@v1"
    counts = {}
    for item in loaded.items:
        assert item.candidates is not None
        letters = dict(zip("ab", (one.text for one in item.candidates.completions), strict=True)) | {"tie": "tie"}
        counts[item.candidates.prompt[-1].content] = sorted(letters[vote] for vote in item.gold["votes"])
    assert counts["q1"] == ["good reply", "good reply", "tie"]
    assert counts["q2"] == ["bad reply", "good reply"]
    with pytest.raises(UsageError, match="an export holds no single votes"):
        load_items(SUITE, str(export_folder("votes")))


def test_votes_of_models_and_rows_without_votes_are_left_out(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "x", "rejected": f"y{n}"} for n in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(tmp_path / "rows.jsonl", dataset="mixed", reading=Reading(rater="gpt:llm"))
    with open_warehouse() as connection, open_ledger() as ledger:
        unit = checkout(connection, resolve(connection, "mixed")).to_pylist()[0]["unit"]
        ledger.append(Event(kind="judgment", actor="ida", payload={"unit": unit, "ranks": [0, 1]}))
        sync(connection, ledger)
    loaded = load_items(SUITE, "mixed:all")
    assert [item.gold["votes"] for item in loaded.items] == [["a"]]
    assert loaded.left_out == {"rows without a pair that people voted on": 1, "votes of models": 2}
    with pytest.raises(DataError, match=r"nothing to evaluate by suite annotators \(no rows\)"):
        load_items(SUITE, "mixed:test")
