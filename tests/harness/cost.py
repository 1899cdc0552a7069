"""What one call costs: `python -m tests.harness.cost MODULE CASE SIZE` prints its CPU seconds and its peak of memory.

A process of its own per size, so that neither an earlier call's free memory nor its caches count. MODULE has a table
CASES of functions that take a size and give back the call to measure; what they build before is not counted.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path


def cost(module: str, case: str, size: int) -> dict[str, float]:
    """`cpu_s` of one call, all threads, and by how many `bytes` it raised the resident memory at its peak."""
    call = importlib.import_module(module).CASES[case](size)
    Path("/proc/self/clear_refs").write_text("5")  # from here on, the kernel counts the peak anew
    before = _resident("VmRSS")
    start = time.process_time()
    call()
    return {"cpu_s": time.process_time() - start, "bytes": _resident("VmHWM") - before}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(json.dumps(cost(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
