"""The evaluator beside the plain loop: same scores from the same weights, nothing scored twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.benchmarks import suites as bench


@pytest.mark.slow
def test_evaluator_and_plain_loop_give_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "HIDDEN", 32)
    monkeypatch.setattr(bench, "LAYERS", 2)
    monkeypatch.setattr(bench, "VOCABULARY", 400)
    rows = [
        {
            "id": i,
            "domain": "chat",
            "prompt": f"question number {i} " * 20,
            "chosen": [f"good {i} " * n for n in (3, 20, 30)],
            "rejected": [f"bad {i} " * n for n in (4, 18, 33)],
        }
        for i in range(4)
    ]
    path = tmp_path / "rm.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bench.main(["--data", str(path), "--prompts", "4", "--rounds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["replies"], result["pairs"]) == (24, 36)
    for kind in ("causal", "encoder"):
        one = result["models"][kind]
        assert one["largest_score_difference"] < 1e-4
        assert len(one["rows"]["speedups_cpu"]) == 2
        assert one["own_cpu_s"] >= 0
    order = bench._order(range(2), "rows")  # type: ignore[arg-type]
    assert len(order) == 2 * 18
    assert order[:4] == [(0, 0), (0, 0), (0, 0), (0, 1)]
