"""Reading an SQLite file in WAL mode without writing beside or into it.

SQLite's own read-only mode still creates `-wal` and `-shm` files, and leaves them. So a file whose log is empty is read
as immutable, and read again where it changed meanwhile; a log that writers hold open, or that a killed one left, is
read with them, its index in memory where nobody keeps it on disk.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")


def undisturbed(path: Path, read: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
    """What `read(connection)` gives or raises, None where there is no file."""
    while (before := _state(path)) is not None:
        has_log = before[-1]
        try:
            uri = f"{path.resolve().as_uri()}?{_mode(path) if has_log else 'mode=ro&immutable=1'}"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)) as connection:
                connection.execute("BEGIN")  # all statements of `read` see one state
                answer = read(connection)
        except Exception:
            if _state(path) == before:
                raise
        else:
            # Nothing locks an immutable file: a writer may have come and gone, or still be there with a log.
            if has_log or _state(path) == before:
                return answer
    return None


def _mode(path: Path) -> str:
    """Without `-shm` (a log copied alone) SQLite reads a log only where it may make that file."""
    return "mode=ro&readonly_shm=1" if path.with_name(path.name + "-shm").exists() else "mode=ro"


def _state(path: Path) -> tuple[int, int, int, bool] | None:
    """Inode, size and time of the file, and whether its log holds anything; None where it is absent."""
    try:
        file = path.stat()
    except FileNotFoundError:
        return None
    try:
        has_log = path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        has_log = False
    return file.st_ino, file.st_size, file.st_mtime_ns, has_log
