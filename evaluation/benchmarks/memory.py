"""The memory that a benchmark's own process took."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Largest resident size of this process since its program started.

    Linux hands `ru_maxrss` on to a started program: a child of a process of 6 GB reports 6 GB. `VmHWM` begins anew.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
