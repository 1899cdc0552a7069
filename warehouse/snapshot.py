"""A private copy of a warehouse that another process writes: the state of its last commit.

DuckDB overwrites no block of the state that the file's headers name; it writes into free blocks and moves the headers
at its next checkpoint. Commits since then stand in the write-ahead log. So a copy made while the headers and the log
stay as they are is that state, whatever else was written meanwhile.

This file is also the program that copies: closing any descriptor of the warehouse drops the locks that its own process
holds on it (POSIX), so another process must open and close it. It needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HEADERS = 3 * 4096  # the file's own, and two of the database, of which the higher iteration counts
NAME = "warehouse.duckdb"
_FICLONE = 0x40049409
_CHANGED, _NO_SPACE = 3, 4  # exit statuses
_PIECE = 16 << 20


def try_snapshot(source: Path, folder: Path) -> bool:
    """Whether `folder` holds the copy, as NAME and logs beside it; no where a commit came between.

    Raises OSError where it cannot be written.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, str(source), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode == _NO_SPACE:
        raise OSError(done.stderr.strip())
    return done.returncode == 0


def main(source: str, folder: str) -> int:
    """Copy once; the exit status."""
    try:
        return 0 if _copy(source, folder) else _CHANGED
    except FileNotFoundError:  # a log that was folded into the file, or the file replaced (erasure)
        return _CHANGED
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return _NO_SPACE


def _copy(source: str, folder: str) -> bool:
    target = os.path.join(folder, NAME)
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    with open(source, "rb", buffering=0) as file:
        before = _state(source, file.fileno())
        logs = [name for name, *_ in before[2]]
        _clone(file.fileno(), target, None if logs else _used(before[1]))
        for name in logs:
            with open(source + name, "rb", buffering=0) as log:
                _clone(log.fileno(), target + name, None)
        return before == _state(source, file.fileno())


def _state(source: str, descriptor: int) -> tuple[tuple[int, int], bytes, list[tuple[str, int, int]]]:
    """What tells one commit from the next: which file it is, its headers, its logs with size and time."""
    here, base = os.path.dirname(source) or ".", os.path.basename(source)
    logs = []
    for name in sorted(os.listdir(here)):
        if name.startswith(base) and "wal" in name[len(base) :] and ".replaced-" not in name:
            facts = os.stat(os.path.join(here, name))
            if facts.st_size:
                logs.append((name[len(base) :], facts.st_size, facts.st_mtime_ns))
    facts = os.stat(source)
    if (facts.st_dev, facts.st_ino) != (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino):
        raise FileNotFoundError(source)
    return (facts.st_dev, facts.st_ino), os.pread(descriptor, HEADERS, 0), logs


def _used(headers: bytes) -> int | None:
    """Bytes of the file that the newest header names: behind them lies what was not committed. None: not known.

    A database header is checksum, iteration, two pointers, number of blocks, their size, all 64 bits.
    """
    if len(headers) < HEADERS:
        return None
    newest: tuple[int, ...] = max(struct.unpack_from("<6Q", headers, start)[1:] for start in (4096, 8192))
    n_blocks, block_bytes = newest[3:]
    if block_bytes not in (1 << bits for bits in range(14, 19)):
        return None
    return HEADERS + n_blocks * block_bytes


def _clone(descriptor: int, target: str, n_bytes: int | None) -> None:
    """Copy a file, or its first bytes: by reference where the file system can, so that it costs nothing."""
    with open(target, "wb", buffering=0) as copy:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.ioctl(copy.fileno(), _FICLONE, descriptor)
            return
        for piece, start in _pieces(descriptor, n_bytes):
            os.pwrite(copy.fileno(), piece, start)


def _pieces(descriptor: int, n_bytes: int | None) -> Iterator[tuple[bytes, int]]:
    start = 0
    while n_bytes is None or start < n_bytes:
        piece = os.pread(descriptor, _PIECE if n_bytes is None else min(_PIECE, n_bytes - start), start)
        if not piece:
            return
        yield piece, start
        start += len(piece)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
