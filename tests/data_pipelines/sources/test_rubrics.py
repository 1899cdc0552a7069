"""Published rubrics through `rmkit ingest`: recognized by their form, bad rows rejected with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmkit.cli import main as cli
from tests.rubrics.test_importers import BIGGEN, DEEP, FLASK, HEALTH
from warehouse.sql import run
from warehouse.store import open_warehouse


@pytest.mark.parametrize(("row", "criteria"), [(BIGGEN, 1), (FLASK, 1), (DEEP, 3), (HEALTH, 2)])
def test_each_form_is_ingested(
    row: dict[str, object], criteria: int, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = row | {"input": "", "instruction": "", "prompt": ""}
    data = tmp_path / "rubrics.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in (row | {"reference_answer": "so"}, broken)))
    assert cli.call("ingest", [str(data), "--name", "rubrics", "--json"]) == 0
    [file] = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert (file["format"], file["accepted"], file["rejected"]) == ("published-rubrics", 1, 1)
    with open_warehouse(read_only=True) as connection:
        [(kind, stored)] = run(connection, "SELECT kind, rubric.criteria FROM unit JOIN rubric USING (rubric_id)")
    assert kind == "rubric"
    assert len(json.loads(stored)) == criteria
