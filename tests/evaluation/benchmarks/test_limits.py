"""`rmkit bench limits` and `bench engines` at small sizes, and that memory does not follow the rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.benchmarks import main as bench
from evaluation.benchmarks.data import limits
from rmkit.errors import RmkitError, UsageError

SMALL, LARGE = 20_000, 100_000
ROW_BYTES = 8000  # DuckDB and allocators fill what they may keep: up to 5,000 here; whole frames in `clean` took 44,000
MEASURED = {"wall_s", "us_per_row", "held_gb", "resident_gb"}


def test_an_unknown_stage_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown stage 'clena'.*clean"):
        bench(["limits", "--stages", "clena"])


def test_what_is_measured_counts_the_processes_of_a_process(tmp_path: Path) -> None:
    block = "x = b'x' * (100 << 20)"
    child = f"import subprocess, sys; {block}; subprocess.run([sys.executable, '-c', \"{block}; input()\"])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        held = 0
        while held < 200 << 20 and process.poll() is None:
            held = limits._memory(process.pid)[0]
        process.communicate(b"\n")
    assert 200 << 20 <= held < 300 << 20


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RmkitError, match=r"failed: .*no such words"):
        limits._measured([sys.executable, "-c", "raise SystemExit('no such words')"], tmp_path, rows=1)


@pytest.mark.slow
def test_stages_are_written_as_they_end_and_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    command = ["limits", "--rows", "600", "--results", str(file), "--json"]
    assert bench(command) == 0
    first = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["stage"] for line in lines] == list(limits.STAGES)
    for line in lines:
        assert set(line["result"]) >= MEASURED
        assert line["result"]["held_gb"] > 0.02
    seen = first["sizes"]["600"]["reader"]
    assert seen["reads"] >= 2
    assert seen["faults"] == []
    assert 0 < seen["median_s"] <= seen["worst_s"]
    monkeypatch.setattr(limits, "run", None)
    assert bench(command) == 0
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.slow
def test_memory_does_not_follow_the_rows() -> None:
    stages = ["ingest", "clean", "export", "score"]
    small, large = (limits.run(rows, stages, seed=0) for rows in (SMALL, LARGE))
    for name in stages:
        growth = (large[name]["held_gb"] - small[name]["held_gb"]) * 1e9
        assert growth < ROW_BYTES * (LARGE - SMALL), name
        assert large[name]["held_gb"] < 1.5


@pytest.mark.slow
def test_both_engines_agree_though_workers_are_killed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray.data")
    assert bench(["engines", "--rows", "3000", "--kills", "1", "--recipes", "scored", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["runs"]
    assert one["recipe"] == "scored"
    assert one["rows_out"] > 2800
    assert one["ratio"] > 0
