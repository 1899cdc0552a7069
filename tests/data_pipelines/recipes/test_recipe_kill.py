"""`kill -9` at random moments of `rmkit run`: no half version, the next start goes on, and the result is the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.sample import SampleConfig, write
from warehouse.sql import run
from warehouse.store import open_warehouse

SAMPLE = SampleConfig(pairs=150, exact_duplicates=10, near_duplicates=10, leaked=5, benchmark_pairs=50, seed=8)


def rmkit(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"RMKIT_HOME": str(home)}
    command = [sys.executable, "-m", "rmkit", *arguments, "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    made: dict[str, Any] = json.loads(out)
    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], float]:
    """A home before the run, what an undisturbed run says, and how long it takes."""
    folder = tmp_path_factory.mktemp("kill")
    data, benchmark = write(folder, SAMPLE)
    finished(rmkit(folder / "home", "ingest", str(data), "--name", "sample"))
    finished(rmkit(folder / "home", "ingest", str(benchmark), "--name", "held-out", "--benchmark"))
    shutil.copytree(folder / "home", folder / "tried")
    start = time.monotonic()
    result = finished(rmkit(folder / "tried", "run", "clean", "--data", "sample"))
    return folder / "home", result, time.monotonic() - start


def versions(home: Path) -> list[tuple[Any, ...]]:
    """Every version with what belongs to it: digest, rows, deltas, recorded steps."""
    sql = """SELECT v.digest, v.n_rows, (SELECT count(*) FROM delta d WHERE d.version_id = v.version_id),
        (SELECT count(*) FROM step_result s WHERE s.run_id = v.run_id), (SELECT status FROM run WHERE run_id = v.run_id)
        FROM version v JOIN dataset USING (dataset_id) WHERE name = 'sample' ORDER BY number"""
    with open_warehouse(home / "warehouse.duckdb") as connection:
        return run(connection, sql)


def killed_until_done(home: Path, result: dict[str, Any], takes_s: float, draw: random.Random, kills: int) -> int:
    """Start and kill that often, checking the warehouse after each; how many kills hit a living process."""
    before, hits = versions(home), 0
    for _ in range(kills):
        process = rmkit(home, "run", "clean", "--data", "sample@v1")
        time.sleep(draw.uniform(0.35, 1.0) * takes_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
        now = versions(home)
        assert now[:1] == before
        assert len(now) <= 2
        for digest, n_rows, _, steps, status in now[1:]:  # committed just before the kill: then whole
            assert (digest, n_rows, steps, status) == (result["digest"], result["rows_out"], 8, "done")
    last = finished(rmkit(home, "run", "clean", "--data", "sample@v1"))
    assert (last["digest"], last["version"]) == (result["digest"], "sample@v2")
    assert len(versions(home)) == 2
    assert list((home / "runs").iterdir()) == []
    return hits


@pytest.mark.slow
def test_two_kills(undisturbed: tuple[Path, dict[str, Any], float], tmp_path: Path) -> None:
    home, result, takes_s = undisturbed
    shutil.copytree(home, tmp_path / "home")
    killed_until_done(tmp_path / "home", result, takes_s, random.Random(1), 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_many_kills(undisturbed: tuple[Path, dict[str, Any], float], tmp_path: Path, seed: int) -> None:
    home, result, takes_s = undisturbed
    shutil.copytree(home, tmp_path / "home")
    assert killed_until_done(tmp_path / "home", result, takes_s, random.Random(seed), 4) >= 1
