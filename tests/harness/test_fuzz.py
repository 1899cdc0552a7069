"""Hostile folders, files and numbers: every command ends with 0, 1 or 2 and at most one line, in bounded time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMMANDS = ("verify", "load", "score", "ingest", "numbers", "export", "restore", "config", "home")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "state"


@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_input_ends_in_one_line(command: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = os.environ | quiet | {"PYTHONPATH": str(HERE.parents[1])}
    arguments = [sys.executable, str(HERE / "fuzz.py"), "--state", str(state), "--cases", "200", command]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        statuses = ", ".join(f"{n} with {status}" for status, n in result["statuses"].items())
        print(f"\n{command:<8} {statuses}; at most {result['slowest_s']} s and {result['largest_mb']} MB")
    assert not result["wrong"], json.dumps(result["wrong"], indent=1)
