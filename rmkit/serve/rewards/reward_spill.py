"""Rewards on disk while the ledger is away: a file of events per process, written into the ledger when it is back.

A line is one event as the ledger's back ends store it (`ledger.rows.Row`). Events keep their ids, and appending one
again does nothing, so a file may be read from its start as often as need be: after a kill, or where nobody knows
whether the last append came through. Its owner holds a lock on it; a file without one was left by a process that ended,
and the next service that logs to the same ledger takes it over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from rmkit.ids import content_hash
from rmkit.ledger.rows import Row, decode
from rmkit.types import Event


class Spill:
    """One such file, oldest event first. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file and locks it. Raises BlockingIOError where another process owns it, OSError."""
        self.path = path
        self.unreadable = 0  # lines that hold no event: torn by a kill or a full disk
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # with `log_text` it holds texts
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._file)
            raise
        self._read = 0  # bytes that are in the ledger already
        self._size = os.fstat(self._file).st_size

    @property
    def bytes(self) -> int:
        """What is still to be written into the ledger."""
        return self._size - self._read

    def put(self, rows: Sequence[Row]) -> None:
        """Add events. Raises OSError where the disk takes them not; then none of them is there."""
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        at = self._size
        try:
            while data:
                written = os.pwrite(self._file, data, at)
                at, data = at + written, data[written:]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)  # half a line would swallow the next one
            raise
        self._size = at

    def next_events(self, n: int) -> tuple[list[Event], int]:
        """Up to n of the oldest events, and the place behind them, which `forget` takes once the ledger has them."""
        events: list[Event] = []
        self.unreadable, at = 0, self._read
        with open(self._file, "rb", closefd=False) as lines:
            lines.seek(at)
            while len(events) < n and (line := lines.readline()):
                at += len(line)
                try:
                    events.append(decode(0, Row(*json.loads(line))).event)
                except (ValueError, TypeError):
                    self.unreadable += 1
        return events, at

    def forget(self, place: int) -> None:
        """Everything before a place is in the ledger."""
        self._read = place

    def close(self) -> None:
        """Let go of the file; one without anything to write is removed."""
        if not self.bytes:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._file)


def new(folder: Path, where: str) -> Spill:
    """A file of this process's own. Raises OSError."""
    while True:
        with contextlib.suppress(BlockingIOError):  # another process took it for abandoned before the lock was ours
            return Spill(folder / f"{_ledger(where)}-{uuid.uuid4().hex}.jsonl")


def abandoned(folder: Path, where: str) -> Iterator[Spill]:
    """The files for this ledger that no process owns any more, now owned by this one."""
    for path in sorted(folder.glob(f"{_ledger(where)}-*.jsonl")):
        with contextlib.suppress(OSError):  # owned, or written and removed by another process meanwhile
            spill = Spill(path)
            yield spill


def _ledger(where: str) -> str:
    """Files belong to one ledger: RMKIT_LEDGER may name another one at the next start."""
    return content_hash(where)[:12]
