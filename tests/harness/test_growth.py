"""Doubling the input may not cost more than 2.2 times the memory or the time, for every step along every axis.

`python -m tests.harness.test_growth [WORD ...]` prints the table of the cases whose names hold one of the words.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.harness.growth_cases import CASES, SIZES

MOST = 2.2
PAIRS = 3
FLOOR_S, FLOOR_BYTES = 0.05, 30_000_000  # below them, what grows is lost in what does not
ROOT = Path(__file__).parents[2]
MODULE = "tests.harness.growth_cases"


def costs(case: str, *sizes: int) -> list[dict[str, float]]:
    """CPU seconds and bytes of a call at each size, measured in processes of their own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.harness.cost", MODULE, case, *map(str, sizes)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def growth(case: str, size: int, pairs: int = PAIRS) -> dict[str, float]:
    """Median ratios of time and memory at twice the size, and the medians at twice the size themselves."""
    measured = costs(case, *[size, 2 * size] * pairs)
    found = list(zip(measured[::2], measured[1::2], strict=True))
    seconds, memory = _ratios(found)
    return {
        "time": seconds,
        "memory": memory,
        "cpu_s": median(twice["cpu_s"] for _, twice in found),
        "bytes": median(twice["bytes"] for _, twice in found),
    }


def _ratios(found: list[tuple[dict[str, float], dict[str, float]]]) -> tuple[float, float]:
    """Of time and of memory, each above its floor."""
    return (
        median(max(twice["cpu_s"], FLOOR_S) / max(once["cpu_s"], FLOOR_S) for once, twice in found),
        median(max(twice["bytes"], FLOOR_BYTES) / max(once["bytes"], FLOOR_BYTES) for once, twice in found),
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_twice_the_input_costs_twice_at_most(case: str) -> None:
    found = growth(case, SIZES[case])
    assert found["time"] <= MOST, found
    assert found["memory"] <= MOST, found


@pytest.mark.slow
def test_contamination_takes_memory_in_proportion_to_the_words_of_a_prompt() -> None:
    """A join that gave each n-gram its prompt's word list took 0.7 GB at 500 words and 2.6 GB at 1,000."""
    once, twice = (one["bytes"] for one in costs("contamination words", 500, 1_000))
    assert twice < 2.2 * max(once, FLOOR_BYTES)


if __name__ == "__main__":
    print(f"{'case':<28} {'size':>7} {'time':>6} {'memory':>7} {'CPU s':>7} {'MB':>7}", flush=True)
    for name, at in SIZES.items():
        if len(sys.argv) == 1 or any(word in name for word in sys.argv[1:]):
            row = growth(name, at, pairs=1)
            print(
                f"{name:<28} {at:>7} {row['time']:>6.2f} {row['memory']:>7.2f} {row['cpu_s']:>7.2f} "
                f"{row['bytes'] / 1e6:>7.0f}",
                flush=True,
            )
