"""What leaves for an annotation tool comes back through the importers with the same labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from rmkit.cli.main import call
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

ROWS = [
    {"prompt": "One?", "responses": ["long answer one", "b"], "ranks": [1, 0]},
    {"prompt": "Two?", "responses": ["c", "d and more"], "ranks": [0, 0]},
    {"prompt": "Three?", "responses": ["e", "f", "g g"], "ranks": [2, 0, 1]},
]


def _labels(ref: str) -> dict[str, dict[str, int]]:
    """Rank of each response text by prompt, for rows with ranks."""
    with open_warehouse(read_only=True) as connection:
        rows = checkout(connection, resolve(connection, ref)).to_pylist()
    return {_last(row["prompt"]): _ranks(row) for row in rows if row["ranks"]}


def _ranks(row: dict[str, Any]) -> dict[str, int]:
    return {_last(text): rank for text, rank in zip(row["responses"], row["ranks"], strict=True)}


def _last(messages: str) -> str:
    return str(json.loads(messages)[-1]["content"])


@pytest.mark.parametrize(("form", "lost"), [("argilla", []), ("label_studio", ["Two?", "Three?"])])
def test_a_version_comes_back_with_its_labels(home: Path, tmp_path: Path, form: str, lost: list[str]) -> None:
    """Label Studio has no ties, and a list of three is no pairwise annotation: those labels stay in meta."""
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    ingest(given, dataset="given")
    assert call("export", ["given", "--format", form, "-o", str(tmp_path / form)]) == 0
    (file,) = (tmp_path / form).glob("*.jsonl")
    ingest(file, dataset="back")
    before, after = _labels("given@v1"), _labels("back@v1")
    assert set(before) - set(after) == set(lost)
    assert {prompt: before[prompt] for prompt in after} == after
    assert before["One?"] == {"long answer one": 1, "b": 0}
