"""Workers that share some devices without a word to each other: each takes the one that needs it most."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(folder: Path, n: int) -> int:
    """A device, from 0 to n - 1, for the life of this process: one with the fewest processes, of these the one whose
    process is the oldest. So a worker that died is replaced where it was, and when workers are replaced one by one,
    each new one starting before its predecessor ends, every device has as many as before."""
    with (folder / "places").open("w") as all_of_them:
        fcntl.flock(all_of_them, fcntl.LOCK_EX)
        holders: dict[int, list[int]] = {number: [] for number in range(n)}
        for path in folder.glob("place-*"):
            number, since = map(int, path.name.split("-")[1:3])
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()  # its process is gone
                except BlockingIOError:
                    holders[number].append(since)
        result = min(holders, key=lambda number: (len(holders[number]), min(holders[number], default=0), number))
        turn = max((one for some in holders.values() for one in some), default=0) + 1
        descriptor = os.open(folder / f"place-{result}-{turn}-{os.getpid()}", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # never closed: it ends with the process
        return result
