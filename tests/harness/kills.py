"""Kill a command that pays for calls at many points, and count what each kill lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmkit.generate.call_cache import KIND
from rmkit.ledger import open_ledger

Start = Callable[[], "subprocess.Popen[bytes]"]


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill behind `asked` different calls, of which `unstored` are on no disk; `lost` of them this run had asked for.

    `alive` unless the command had ended.
    """

    asked: int
    unstored: int
    lost: int
    alive: bool


def command(folder: Path, home: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`rmkit ...` in a process of its own, with a home below the folder."""
    environment = os.environ | {"RMKIT_HOME": str(folder / home)}
    return subprocess.Popen(
        [sys.executable, "-m", "rmkit", *arguments],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def killed_at(points: Sequence[tuple[int, float]], start: Start, asked: Counter[str], home: Path) -> list[Kill]:
    """Start the command and kill it, once for each point: so many different calls asked, and so many seconds after."""
    kills: list[Kill] = []
    stored = 0
    for n_calls, seconds in points:
        before = asked.total() - stored
        running = start()
        while len(asked) < n_calls and running.poll() is None:
            time.sleep(0.002)
        time.sleep(seconds)
        alive = running.poll() is None
        running.kill()
        running.communicate()
        time.sleep(0.2)  # what was under way has arrived
        os.environ["RMKIT_HOME"] = str(home)
        with open_ledger(home / "ledger.sqlite", read_only=True) as ledger:
            stored = sum(1 for _ in ledger.records(KIND))
        kills.append(Kill(len(asked), len(asked) - stored, asked.total() - stored - before, alive))
    return kills


def spread(total: int, n: int = 12) -> list[tuple[int, float]]:
    """Points: at the very start, spread over all calls, and from then on by time, while the result is written."""
    between = [(max(1, round(total * at / n)), 0.0) for at in range(1, n)]
    return [(0, 0.3), (1, 0.0), *between, (total, 0.0), *((total, 0.5 + 0.3 * at) for at in range(6))]
