"""Steps that curate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_pipelines.steps import configure
from rmkit.errors import ConfigError
from tests.data_pipelines.frames import apply, pair


def asked(name: str, **meta: str) -> dict[str, Any]:
    return pair(f"{name}?", f"{name} yes", f"{name} no", meta=json.dumps(meta))


def test_no_training_row_knows_the_test_periods_news() -> None:
    rows = [
        asked("old", time="2024-01-05", known="2024-01-12"),
        asked("across", time="2024-05-28", known="2024-06-03"),
        asked("new", time="2024-06-01", known="2024-06-08T12:00:00+02:00"),
        asked("dateless", time="2024-01-05"),
        asked("odd", time="2024-02-05", known="2024-02-01"),
    ]
    result = apply("time_split", rows, cut="2024-06-01")
    names = dict(zip([row["id"] for row in rows], ("old", "across", "new", "dateless", "odd"), strict=True))
    assert {names[row["id"]]: row["split"] for row in result.kept.to_dicts()} == {"old": "train", "new": "test"}
    assert {names[row["id"]]: row["reason"] for row in result.dropped.to_dicts()} == {
        "across": "known only after the cut",
        "dateless": "no date of question and outcome",
        "odd": "its outcome was known before it was asked",
    }
    dates = {row["split"]: json.loads(row["meta"]) for row in result.kept.to_dicts()}
    assert dates["train"]["known"] < dates["test"]["time"]
    with pytest.raises(ConfigError, match="cut is a date"):
        configure("time_split", {"cut": "June"}, where="test")
