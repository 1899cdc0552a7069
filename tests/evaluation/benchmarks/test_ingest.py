"""The ingest benchmark at a small size: what it plants, what it reports, and that it fails on a wrong count."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evaluation.benchmarks import main as bench
from evaluation.benchmarks.data import ingest
from evaluation.benchmarks.memory import peak_bytes
from rmkit.errors import RmkitError, UsageError


def test_generated_pairs_are_as_planted(tmp_path: Path) -> None:
    planted = ingest.generate(tmp_path / "a.parquet", 1200)
    assert planted == {"n_unusable": 12, "n_repeats": 24}
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    unusable = [r for r in rows if not r["prompt"].strip() or r["rejected"] is None or r["rejected"] == r["chosen"]]
    assert len(unusable) == 12
    assert len({tuple(row.values()) for row in rows}) == 1200 - 24
    size = sum(len(text or "") for row in rows for text in row.values()) / len(rows)
    assert 900 < size < 1300
    ingest.generate(tmp_path / "b.parquet", 1200)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.slow
def test_bench_runs_all_three_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["ingest", "--pairs", "600", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["pairs"], result["rmkit"]["n_units"]) == (600, 600 - 6 - 12)
    for name in ("rmkit", "duckdb", "polars"):
        assert result[name]["wall_s"] > 0
        assert 0.02 < result[name]["peak_rss_gb"] < 4
        assert result[name]["bytes"] > 100_000
    assert {"hash_texts", "store_units", "commit_version"} <= set(result["rmkit"]["phases_s"])


def test_the_peak_is_the_programs_own_and_not_its_parents() -> None:
    block = b"x" * (600 << 20)
    command = [sys.executable, "-c", "from evaluation.benchmarks.memory import peak_bytes; print(peak_bytes())"]
    child = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert child < len(block) / 4 < peak_bytes()


def test_a_count_that_is_off_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"n_rejected": 5, "n_repeats": 12, "n_units": 583}
    monkeypatch.setattr(ingest, "measure", lambda *_: measured)
    with pytest.raises(RmkitError, match="planted were"):
        ingest.run(tmp_path, 600, seed=0)


def test_unknown_benchmarks_and_sizes_are_named() -> None:
    with pytest.raises(
        UsageError, match=r"unknown name of rmkit bench 'speed'.* Known: ingest, limits, engines, versions"
    ):
        bench(["speed"])
    with pytest.raises(UsageError, match="at least 1, got 0"):
        bench(["ingest", "--pairs", "0"])
