"""The fault injector (`faults`), command by command. Needs a C compiler; the count is checked against strace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
COMMANDS = ("ingest", "run", "sync", "export", "train", "score", "calibrate", "promote", "backup", "restore")
WATCHED = "fsync,fdatasync,rename,renameat,renameat2,link,linkat"
# Nothing that is preloaded sees a system call made without the C library; these would show one.
ALSO = "sync_file_range,syncfs,sync,msync"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler to build the counter with"),
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path, HERE / "faults.c", "-ldl"], check=True)
    return path


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials") / "state"


def injector(library: Path, state: Path, *arguments: str, under: tuple[str, ...] = ()) -> dict[str, Any]:
    quiet = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"), "1")
    environment = os.environ | quiet | {"PYTHONPATH": str(HERE.parents[1])}
    preload = ("-E", f"LD_PRELOAD={library}") if under else ()
    environment |= {} if under else {"LD_PRELOAD": str(library)}
    command = [*under, *preload, sys.executable, str(HERE / "faults.py"), "--state", str(state), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_call_failed_and_killed_in_turn(
    command: str, library: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = injector(library, state, command)
    with capsys.disabled():
        kinds = ", ".join(f"{n} {name}" for name, n in result["calls"].items())
        print(f"\n{command:<10} {result['points']:>3} points ({kinds}), {result['seconds']:.0f} s")
    assert result["points"] > 0
    assert not result["wrong"], json.dumps(result["wrong"], indent=1)


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace to count with")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_injector_sees_every_call_that_strace_sees(
    command: str, library: Path, state: Path, tmp_path: Path
) -> None:
    if not state.exists():
        injector(library, state, command, "--once")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", f"trace={WATCHED},{ALSO}", "-o", str(trace))
    counted = injector(library, state, command, "--once", under=strace)["points"]
    lines = [
        line
        for line in trace.read_text().splitlines()
        if re.search(r"^\d+ +\w+\(", line) and "/dev/shm/" not in line  # semaphores
    ]
    assert len(lines) <= counted, [re.sub(r"^\d+ +", "", line)[:100] for line in lines]
