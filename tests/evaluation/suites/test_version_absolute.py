"""Labels of single responses, from the file to the items of a suite."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data_pipelines.ingest.command import ingest
from evaluation.suites.suite import Suite
from evaluation.suites.version import version_items
from rmkit.data.example import read_manifest
from warehouse.out.export import export_folder

SUITE = cast(Suite, SimpleNamespace(name="absolute", form="absolute"))


def stored(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row | {"split": "test"}) + "\n" for row in rows))
    ingest(path)
    return "labels:test"


def golds(data: str) -> dict[tuple[str, str], tuple[float, bool]]:
    """(text, subset) -> (label, good)."""
    items = version_items(SUITE, data).items
    assert len({item.id for item in items}) == len(items)
    texts = [(item, item.candidates.completions) for item in items if item.candidates]
    return {(one.text, item.subset): (item.gold["label"], item.gold["good"]) for item, (one,) in texts}


@pytest.mark.parametrize("labels", [[True, False, True], ["yes", "no", "yes"], [1, 0, 1]])
def test_yes_and_no(home: Path, tmp_path: Path, labels: list[Any]) -> None:
    replies = [{"prompt": "Hi?", "completion": f"r{at}", "label": label} for at, label in enumerate(labels)]
    result = golds(stored(tmp_path, replies))
    assert {text: gold for (text, _), gold in result.items()} == {
        "r0": (1, True),
        "r1": (0, False),
        "r2": (1, True),
    }
    scales = read_manifest(export_folder("labels"))["label_scales"]
    assert [(one["aspect"], one["low"], one["high"], one["levels"]) for one in scales] == [
        ("desirable", 0, 1, ["no", "yes"])
    ]


def test_good_is_above_the_middle_of_the_scale_and_not_of_what_occurs(home: Path, tmp_path: Path) -> None:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    rows = [
        {"prompt": "Hi?", "response": "a"} | dict(zip(names, (4, 3, 4, 0, 1), strict=True)),
        {"prompt": "Hi?", "response": "b"} | dict(zip(names, (3, 0, 4, 1, 2), strict=True)),
    ]
    result = golds(stored(tmp_path, rows))
    assert len(result) == 10  # an aspect each
    assert (result["a", "helpfulness"], result["b", "helpfulness"]) == ((4, True), (3, True))
    assert (result["a", "complexity"], result["b", "verbosity"]) == ((0, False), (2, False))
    assert (result["a", "correctness"], result["b", "correctness"]) == ((3, True), (0, False))


def test_without_a_scale_good_is_above_the_middle_of_the_split(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{at}", "response": f"r{at}", "score": p} for at, p in enumerate((0.05, 0.4, 0.55))]
    rows += [{"prompt": "q0", "response": "r0", "score": 0.15, "rater": "b"}]  # two forecasts: their mean is 0.1
    result = {text: gold for (text, _), gold in golds(stored(tmp_path, rows)).items()}
    assert result == {"r0": (0.1, False), "r1": (0.4, True), "r2": (0.55, True)}
