"""What calls cost: `python -m tests.harness.cost MODULE CASE SIZE ...` prints a line of JSON for each size.

MODULE has a table CASES of functions that take a size and give back the call to measure; what they build before is not
counted. Each size has a process of its own, forked before anything has been computed, so that neither an earlier
call's free memory nor its caches count.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cost(make: Callable[[int], Callable[[], Any]], size: int) -> dict[str, float]:
    """`cpu_s` of one call, all threads, and by how many `bytes` it raised the resident memory at its peak."""
    call = make(size)
    Path("/proc/self/clear_refs").write_text("5")  # from here on, the kernel counts the peak anew
    before = _resident("VmRSS")
    start = time.process_time()
    call()
    return {"cpu_s": time.process_time() - start, "bytes": _resident("VmHWM") - before}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main(module: str, case: str, *sizes: str) -> int:
    """Status 1 where a call failed; its traceback is on standard error."""
    make = importlib.import_module(module).CASES[case]
    for size in sizes:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                print(json.dumps(cost(make, int(size))), flush=True)
                status = 0
            finally:
                if status:
                    sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(status)
        if os.waitpid(child, 0)[1]:
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
