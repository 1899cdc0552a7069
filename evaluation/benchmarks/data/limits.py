"""`rmkit bench limits`: time a row and peak memory of the data commands as the rows grow.

For each number of rows, pairs of about 1 KB are generated (see `rmkit bench ingest`) and taken through

    ingest   rmkit ingest
    clean    rmkit run clean
    export   rmkit export of what clean made
    score    rmkit run with the step `score` and the model `length`, so that the stream counts and not a network

each a command in a process of its own; memory is the largest resident size of that process. What costs more than a
linear command shows as a ratio above 1 of the time a row at the largest number of rows to that at the smallest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evaluation.benchmarks.data.ingest import generate
from rmkit.cli import arguments, display
from rmkit.errors import RmkitError

SCORE = '[recipe]\nname = "scored"\n\n[[step]]\nuse = "score"\nmodel = "length"\n'
COMMANDS = {
    "ingest": "ingest {file} --name rows --yes",
    "clean": "run clean --data rows --out clean",
    "export": "export clean -o {folder}/export",
    "score": "run {recipe} --data clean --out scored",
}
# The peak is that of the program that the last line starts: a shell's own would hide it.
CHILD = """
import sys
from evaluation.benchmarks.memory import peak_bytes
from rmkit.cli.main import main
status = main(sys.argv[1:])
print(peak_bytes(), file=sys.stderr)
sys.exit(status)
"""


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench limits`. Raises RmkitError where a command fails."""
    parser = arguments.parser(
        "bench limits",
        "Seconds, microseconds a row and peak memory of ingest, clean, export and score at several numbers of rows.",
        examples=["bench limits", "bench limits --rows 20000,200000 --json"],
    )
    parser.add_argument(
        "--rows", type=arguments.numbers, default=[100_000, 1_000_000], metavar="N,...", help="how many"
    )
    parser.add_argument(
        "--stages", default=",".join(COMMANDS), metavar="NAME,...", help="only these; each needs those before it"
    )
    parser.add_seed(help="of the generator")
    options = parser.parse_args(argv)
    stages = [name for name in COMMANDS if name in options.stages.split(",")]
    results = [run(int(rows), stages, seed=options.seed) for rows in sorted(options.rows)]
    display.emit({"sizes": results}, as_json=options.json, text=_text(results))
    return 0


def run(rows: int, stages: list[str], *, seed: int) -> dict[str, Any]:
    """wall_s, us_per_row and peak_gb of each stage."""
    with tempfile.TemporaryDirectory(prefix="rmkit-limits-") as scratch:
        folder = Path(scratch)
        generate(folder / "rows.parquet", rows, seed=seed)
        (folder / "scored.toml").write_text(SCORE)
        names = {"file": folder / "rows.parquet", "folder": folder, "recipe": folder / "scored.toml"}
        result: dict[str, Any] = {"rows": rows}
        for name in stages:
            start = time.perf_counter()
            command = [sys.executable, "-c", CHILD, *COMMANDS[name].format(**names).split(), "--json"]
            done = subprocess.run(
                command, env=os.environ | {"RMKIT_HOME": str(folder / "home")}, capture_output=True, text=True
            )
            lines = done.stderr.strip().splitlines() or ["no message"]
            if done.returncode:
                raise RmkitError(f"{name} of {rows} rows failed: {lines[-2:]}")
            seconds = time.perf_counter() - start
            result[name] = {
                "wall_s": round(seconds, 1),
                "us_per_row": round(seconds / rows * 1e6, 1),
                "peak_gb": round(int(lines[-1]) / 1e9, 2),
            }
        shutil.rmtree(folder / "home")
    return result


def _text(results: list[dict[str, Any]]) -> str:
    lines = [("stage", *(f"{one['rows']:,} rows: s, us a row, GB" for one in results), "last / first a row")]
    for name in [stage for stage in COMMANDS if stage in results[0]]:
        cells = [f"{one[name]['wall_s']}, {one[name]['us_per_row']}, {one[name]['peak_gb']}" for one in results]
        ratio = results[-1][name]["us_per_row"] / results[0][name]["us_per_row"]
        lines.append((name, *cells, f"{ratio:.2f}"))
    head, *rest = lines
    return display.table(head, rest)
