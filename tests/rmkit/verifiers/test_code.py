"""Programs under bubblewrap: what passes, what is stopped and why, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rmkit.errors import UsageError
from rmkit.verifiers import sandbox
from tests.rmkit.verifiers.verified import scores, value


def _usable() -> bool:
    try:
        sandbox.bubblewrap()
    except UsageError:
        return False
    return True


needs_sandbox = pytest.mark.skipif(not _usable(), reason="no bubblewrap here")

ADD = "Here:\n```python\ndef add(a, b):\n    return a + b\n```"
OFF = "```python\ndef add(a, b):\n    return a + b if a < 3 else 0\n```"
HOSTILE = {  # what a program tries, and what its rationale says
    "forks": (
        "import os, time\nfor _ in range(200):\n    if not os.fork():\n        time.sleep(60)",
        "Resource temporarily",
    ),
    "memory": ("x = bytearray(10 * 2**30)", "MemoryError"),
    "network": ("import socket\nsocket.create_connection(('1.1.1.1', 80), 5)", "Network is unreachable"),
    "loop": ("while True:\n    pass", "stopped after 2 s"),
    "sleep": ("import time\ntime.sleep(60)", "stopped after 2 s"),
    "outside": ("open('/usr/planted', 'w')", "Read-only file system"),
    "root": ("open('/planted', 'w')", "Read-only file system"),
    "secrets": ("open('/etc/passwd').read()", "No such file"),
    "disk": ("for i in range(99):\n    open(f'/tmp/{i}', 'wb').write(bytes(9 * 2**20))", "No space left"),
    "namespaces": ("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0, 'refused'", "refused"),
    "exit": ("import os\nos._exit(0)", "ended the process (status 0)"),
}


@needs_sandbox
def test_programs_and_their_tests() -> None:
    tests = json.dumps(["assert add(2, 3) == 5", "assert add(4, 1) == 5", "assert add(1, 1) == 2"])
    [right, wrong, broken] = scores("code", tests, ADD, OFF, "```python\ndef add(:\n```")
    assert (right.value, wrong.value, broken.value) == (1, 0, 0)
    assert (wrong.rationale, str(broken.rationale)[:11]) == ("AssertionError: ", "SyntaxError")
    assert value("code", tests, OFF, partial=True) == pytest.approx(2 / 3)
    assert value("code", "assert add(2, 3) == 5", ADD) == 1
    human = {"test": "def check(f):\n    assert f(1, 1) == 2", "entry_point": "add"}
    assert value("code", json.dumps(human), ADD) == 1
    printed = json.dumps({"inputs": ["2 3\n", "4 4\n"], "outputs": ["5\n", "9\n"]})
    sums = "print(sum(map(int, input().split())))"
    assert [value("code", printed, sums, partial=True), value("code", printed, sums)] == [0.5, 0]
    assert value("code", None, ADD) == "there is no reference answer to verify against"
    assert "tests are Python" in str(value("code", "{}", ADD))


@needs_sandbox
@pytest.mark.parametrize("name", ["forks", "memory", "network", "outside", "exit"])
def test_a_hostile_program_is_stopped_and_says_by_what(name: str) -> None:
    program, why = HOSTILE[name]
    [score] = scores("code", "pass", program, timeout_s=2.0)
    assert score.value == 0
    assert why in str(score.rationale)


@needs_sandbox
@pytest.mark.slow
def test_two_hundred_hostile_programs_leave_nothing_behind() -> None:
    before = set(Path("/tmp").iterdir()) | set(Path("/").iterdir()) | set(Path("/usr").iterdir())
    programs = [HOSTILE[name] for name in HOSTILE] * 19
    results = scores("code", "pass", *(program for program, _ in programs[:200]), timeout_s=2.0)
    for (_, why), score in zip(programs, results, strict=False):
        assert score.value == 0
        assert why in str(score.rationale)
    assert len(results) == 200
    after = set(Path("/tmp").iterdir()) | set(Path("/").iterdir()) | set(Path("/usr").iterdir())
    assert not {path for path in after - before if "planted" in path.name}
    assert not _running("/code/harness.py")


@needs_sandbox
def test_limits_are_each_sandboxes_own() -> None:
    """Eight programs of ten processes each, at once: more than one sandbox's limit together."""
    program = "import os\nfor _ in range(10):\n    if not os.fork():\n        os._exit(0)\n    os.wait()"
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: value("code", "pass", program), range(8))) == [1.0] * 8


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.bubblewrap.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    try:
        with pytest.raises(UsageError, match="programs are only run in a sandbox: install bubblewrap"):
            scores("code", "pass", "x = 1")
    finally:
        sandbox.bubblewrap.cache_clear()


def _running(argument: str) -> Sequence[str]:
    """Living processes with this argument; a zombie has no command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if argument.encode() in line:
                found.append(process.name)
    return found
