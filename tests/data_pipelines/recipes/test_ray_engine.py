"""`rmkit run --engine ray`: the same version as from one process, also when workers are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_pipelines.sample import SampleConfig, write

pytestmark = pytest.mark.slow
pytest.importorskip("ray.data")

SCORED = """
[recipe]
name = "scored"

[[step]]
use = "normalize"

[[step]]
use = "score"
model = "length"

[[step]]
use = "quality"
"""
SMALL_PARTS = "import data_pipelines.recipes.parts as parts; parts.PIECE_ROWS = 60; from rmkit.cli.main import main; "
KILLS = 5


def rmkit(home: Path, *arguments: str) -> subprocess.Popen[str]:
    code = f"{SMALL_PARTS}import sys; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments, "--json"]
    environment = os.environ | {"RMKIT_HOME": str(home)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    result: dict[str, Any] = json.loads(out)
    return result


def told(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key not in ("wall_s", "reused")}


def kill_workers(driver: subprocess.Popen[str], kills: list[int]) -> None:
    """SIGKILL to processes that run actors below the command, until KILLS were hit or it ends."""
    while driver.poll() is None and len(kills) < KILLS:
        time.sleep(0.05)
        try:
            below = psutil.Process(driver.pid).children(recursive=True)
            actors = [one for one in below if "MapWorker" in " ".join(one.cmdline())]
            for one in actors[:1]:
                one.send_signal(signal.SIGKILL)
                kills.append(one.pid)
                time.sleep(1.0)
        except psutil.Error:
            continue


def test_ray_gives_the_same_version_though_workers_are_killed(tmp_path: Path) -> None:
    data, benchmark = write(
        tmp_path, SampleConfig(pairs=1500, exact_duplicates=20, leaked=8, benchmark_pairs=60, seed=5)
    )
    (recipe := tmp_path / "scored.toml").write_text(SCORED)
    home = tmp_path / "home"
    finished(rmkit(home, "ingest", str(data), "--name", "sample"))
    finished(rmkit(home, "ingest", str(benchmark), "--name", "held-out", "--benchmark"))
    for name in ("clean", str(recipe)):
        results = []
        for engine in (["--engine", "local"], ["--engine", "ray", "--workers", "2"]):
            shutil.copytree(home, here := tmp_path / f"{Path(name).stem}-{engine[1]}")
            command = rmkit(here, "run", name, "--data", "sample@v1", *engine)
            kills: list[int] = []
            if engine[1] == "ray":
                killer = threading.Thread(target=kill_workers, args=(command, kills))
                killer.start()
            results.append(finished(command))
            assert list((here / "runs").iterdir()) == []
        killer.join()
        assert kills
        local, ray = results
        assert local["digest"] == ray["digest"]
        assert list(map(told, local["steps"])) == list(map(told, ray["steps"]))
