"""`rmkit bench chain`: the cost of a five-step chain over many groups, and of reading the columns."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from rmkit.cli import arguments, display
from rmkit.shaping import Group, chain

CHAIN: list[str | dict[str, Any]] = [
    {"use": "affine", "column": "length", "scale": -1 / 4096, "shift": 4.0, "into": "overlong"},
    {"use": "clip", "column": "overlong", "min": -1, "max": 0},
    {"use": "affine", "add": {"overlong": 1.0}},
    {"use": "normalize", "by": ["group", "n_calls"]},
    {"use": "clip", "min": -3, "max": 3},
]


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench chain", "Cost of a five-step chain over groups.", examples=["bench chain --groups 1024"]
    )
    parser.add_argument("--groups", type=arguments.positive, default=1024)
    parser.add_argument("--size", type=arguments.positive, default=16, help="completions a group")
    parser.add_argument("--repeats", type=arguments.positive, default=50)
    options = parser.parse_args(argv)
    summary = run(options.groups, options.size, options.repeats)
    text = "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in summary.items())
    display.emit(summary, as_json=options.json, text=text)
    return 0


def run(groups: int, size: int, repeats: int) -> dict[str, object]:
    """Milliseconds: median, fastest and slowest of the repeats; beside them the processor's own time."""
    draw = random.Random(0)
    n = groups * size
    columns: dict[str, list[Any]] = {
        "reward": [draw.choice([0.0, 1.0, None, draw.gauss(0, 1)]) for _ in range(n)],
        "length": [float(draw.randrange(1, 22_000)) for _ in range(n)],
        "n_calls": [float(draw.randrange(4)) for _ in range(n)],
        "group": [f"prompt {number // size}" for number in range(n)],
    }
    shape = chain(CHAIN)
    begin = time.perf_counter()
    group = Group.of(columns)
    read_ms = 1000 * (time.perf_counter() - begin)
    times, busy = [], []
    for _ in range(repeats):
        begin, cpu = time.perf_counter(), time.process_time()
        shape.apply(group)
        times.append(1000 * (time.perf_counter() - begin))
        busy.append(1000 * (time.process_time() - cpu))
    return {
        "groups": groups,
        "completions_a_group": size,
        "transforms": len(shape.links),
        "chain_ms": round(statistics.median(times), 2),
        "chain_cpu_ms": round(statistics.median(busy), 2),
        "fastest_ms": round(min(times), 2),
        "slowest_ms": round(max(times), 2),
        "reading_columns_ms": round(read_ms, 2),
    }
