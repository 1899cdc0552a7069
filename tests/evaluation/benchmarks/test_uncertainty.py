"""The uncertainty benchmark runs, at toy size, and writes its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmkit.revision import versions_text

pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.benchmarks import main, uncertainty


def test_it_runs_and_writes_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncertainty, "LEAST_S", 0.0)
    monkeypatch.setattr(uncertainty, "_frozen_cases", lambda options: {})  # the encoder takes too long for a test
    argv = ["uncertainty", "--size", "tiny", "--items", "2", "--repeats", "1", "--passes", "3", "--threads", "1"]
    assert main([*argv, "--page", str(tmp_path / "page.md"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["cases"]) == {"explicit, head dropout", "explicit, model dropout"}
    assert all(case["ratio_low"] <= case["ratio"] <= case["ratio_high"] for case in told["cases"].values())
    page = (tmp_path / "page.md").read_text()
    assert "rmkit bench uncertainty --size tiny" in page
    assert "| explicit, head dropout |" in page
    assert versions_text() in page
