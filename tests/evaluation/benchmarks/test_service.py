"""`rmkit bench service`: how rates, ratios and counts come about, and one small run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi")

from evaluation.benchmarks.service import load as service_load
from evaluation.benchmarks.service import page as service_page
from evaluation.benchmarks.service import run as service
from rmkit.cli.main import main as rmkit


def seen(answers: list[tuple[float, float, int, int]], **counts: int) -> dict[str, Any]:
    return {"answers": answers, "counts": counts, "client_cpu": 0.2, "server_cpu_s": 1.5}


def test_rates_and_latencies_by_hand() -> None:
    """A stretch of 13 s, the first 3 uncounted: 40 completions in 10 s; what came early, late or as a 429 is none."""
    loaded = seen(
        [(1.0, 0.5, 200, 100), (4.0, 1.0, 200, 30), (12.9, 2.0, 200, 10), (5, 0.1, 429, 8), (13.1, 3, 200, 9)]
    )
    assert service.rate(loaded, 13.0) == 4.0
    found = service.summarize(
        [{"service": loaded, "bare": {"rate": 5.0, "cpu_ms": 9.0}, "plain": loaded}] * 2, 13.0, 13.0
    )
    assert found["ratio_to_bare"] == {"median": 0.8, "low": 0.8, "high": 0.8}
    assert found["ratio_to_plain"]["median"] == 1.0
    assert found["latency_s"]["service"] == {"p50": 2.0, "p95": 3, "p99": 3}
    assert found["ms_per_completion"] == 200
    assert found["cpu_ms"]["service"] == pytest.approx(1500 / 149)
    assert found["counts"]["service"] == {"right": 0, "wrong": 0, "lost": 0, "200": 8, "429": 2}


def test_an_answer_is_right_only_where_every_score_is() -> None:
    def body(*values: float | None) -> bytes:
        return json.dumps({"scores": [[{"value": value} for value in values]]}).encode()

    assert service_load.is_right("rmkit", body(1.0, -20.0), [1.00005, -20.001])
    assert not service_load.is_right("rmkit", body(1.0, -20.0), [1.0002, -20.0])
    assert not service_load.is_right("rmkit", body(1.0), [1.0, 2.0])
    assert not service_load.is_right("rmkit", body(None), [1.0])
    assert service_load.is_right("plain", b'{"rewards": [1.0]}', [1.0])


def test_memory_is_told_by_thirds() -> None:
    assert service_page.memory([1, 2, 3, 9, 4, 5, 7, 8, 6]) == {
        "first_third_mb": 2,
        "last_third_mb": 7,
        "peak_mb": 9,
    }


@pytest.mark.slow
def test_a_small_run_answers_everything_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, plot = tmp_path / "service.md", tmp_path / "service.svg"
    load = ["--seconds", "12", "--rounds", "1", "--clients", "8", "--prompts", "12", "--overload-s", "4"]
    small = [*load, "--layers", "1", "--hidden", "64", "--json"]
    assert rmkit(["bench", "service", *small, "--page", str(page), "--plot", str(plot)]) == 0
    told = json.loads(capsys.readouterr().out)
    for name in ("service", "plain"):
        counts = told["counts"][name]
        assert (counts["wrong"], counts["lost"]) == (0, 0)
        assert counts["right"] == counts["200"] > 10
    over = told["overload"]["counts"]
    assert (over["wrong"], over["lost"]) == (0, 0)
    assert {key for key in over if key.isdigit()} <= {"200", "429"}
    assert told["overload"]["recovery_s"] < 30
    assert "service / bare engine" in page.read_text()
    assert plot.read_text().startswith("<?xml")
