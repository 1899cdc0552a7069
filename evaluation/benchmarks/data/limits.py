"""`rmkit bench limits`: time a row and memory of the data commands as the rows grow.

For each number of rows, pairs of about 1 KB are generated (see `rmkit bench ingest`) and taken through

    ingest   rmkit ingest
    reader   the same in another warehouse, beside a reader that runs `datasets` and `why` once a second until it ends
    clean    rmkit run clean
    export   rmkit export of what clean made
    tokens   the token store of that export's train split, encoded by one process a core
    score    rmkit run with the step `score` and the model `length`, so that the stream counts and not a network

each a command in a process of its own. `CPU` is its processor time and that of its own processes, which other work
touches less than the time that passed. `held` is the memory that they have for themselves at most, `resident` also
counts pages of mapped files, which the system takes back when it needs them; both are read twenty times a second. What
costs more than a linear command shows as a ratio above 1 of the time a row at the largest number of rows to that at the
smallest, by the clock and by processor time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.data.ingest import generate
from rmkit.cli import arguments, display
from rmkit.cli.main import call
from rmkit.errors import RmkitError, UsageError, unknown

SCORE = '[recipe]\nname = "scored"\n\n[[step]]\nuse = "score"\nmodel = "length"\n'
RMKIT = [sys.executable, "-m", "rmkit"]
TOKENS = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from rmkit.chat.encode import Chat, TruncationPolicy
from rmkit.training.objectives.bradley_terry import BradleyTerry
from rmkit.training.tokens.encode import stored_rows
chat = Chat(AutoTokenizer.from_pretrained(sys.argv[2]), TruncationPolicy(max_length=4096))
print(len(stored_rows(Path(sys.argv[1]), ("train",), chat, objective=BradleyTerry())))
"""
STAGES: dict[str, Sequence[str]] = {
    "ingest": [*RMKIT, "ingest", "{folder}/rows.parquet", "--name", "rows", "--yes"],
    "reader": [*RMKIT, "ingest", "{folder}/rows.parquet", "--name", "rows", "--yes"],
    "clean": [*RMKIT, "run", "clean", "--data", "rows", "--out", "clean"],
    "export": [*RMKIT, "export", "clean", "-o", "{folder}/export"],
    "tokens": [sys.executable, "-c", TOKENS, "{folder}/export", "{folder}/model"],
    "score": [*RMKIT, "run", "{folder}/scored.toml", "--data", "clean", "--out", "scored"],
}
KEYS = ("wall_s", "us_per_row", "cpu_us_per_row", "held_gb", "resident_gb")
FEW = 1000  # rows that the reader's warehouse has before


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench limits`. Raises RmkitError where a command fails."""
    parser = arguments.parser(
        "bench limits",
        "Time a row and memory of ingest, clean, export, token store and score at several numbers of rows.",
        examples=["bench limits", "bench limits --rows 20000,200000 --stages ingest,reader --json"],
    )
    parser.add_argument(
        "--rows", type=arguments.numbers, default=[100_000, 1_000_000], metavar="N,...", help="how many"
    )
    parser.add_argument(
        "--stages", default=",".join(STAGES), metavar="NAME,...", help="only these; each needs those before it"
    )
    parser.add_argument(
        "--results",
        type=arguments.local_path,
        metavar="JSONL",
        help="write each stage as it ends; sizes that are whole there count",
    )
    parser.add_seed(help="of the generator")
    options = parser.parse_args(argv)
    stages = options.stages.split(",")
    if extra := set(stages) - STAGES.keys():
        raise UsageError(unknown("stage", min(extra), STAGES))
    results = _results(options.results)
    for rows in map(int, sorted(options.rows)):
        if not set(stages) <= results.get(rows, {}).keys():
            results[rows] = run(rows, stages, seed=options.seed, file=options.results)
    display.emit({"sizes": results}, as_json=options.json, text=_text(results))
    return 0


def _results(file: Path | None) -> dict[int, dict[str, Any]]:
    results: dict[int, dict[str, Any]] = {}
    if file is not None and file.exists():
        for line in map(json.loads, file.read_text().splitlines()):
            results.setdefault(line["rows"], {})[line["stage"]] = line["result"]
    return results


def run(rows: int, stages: Sequence[str], *, seed: int, file: Path | None = None) -> dict[str, Any]:
    """wall_s, us_per_row, held_gb and resident_gb of each stage; of `reader` also what the reader saw."""
    result: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="rmkit-limits-") as folder,
        display.progress("stages", len(stages)) as advance,
    ):
        place = Path(folder)
        generate(place / "rows.parquet", rows, seed=seed)
        (place / "scored.toml").write_text(SCORE)
        for name in [stage for stage in STAGES if stage in stages]:
            command = [word.replace("{folder}", folder) for word in STAGES[name]]
            match name:
                case "reader":
                    with tempfile.TemporaryDirectory(dir=folder) as home:
                        result[name] = _beside_a_reader(command, Path(home), rows=rows, seed=seed)
                case "tokens":
                    _tokenizer(place)
                    result[name] = _measured(command, place / "home", rows=rows)
                case _:
                    result[name] = _measured(command, place / "home", rows=rows)
            if file is not None:
                with file.open("a") as out:
                    out.write(json.dumps({"rows": rows, "stage": name, "result": result[name]}) + "\n")
            advance(1)
    return result


def _measured(
    command: Sequence[str], home: Path, *, rows: int, meanwhile: Callable[[], None] | None = None
) -> dict[str, float]:
    """Seconds and memory of a command; `meanwhile` is called again and again until it ends."""
    held = resident = 0
    start, cpu = time.perf_counter(), _processor_time()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env=os.environ | {"RMKIT_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=errors
        )
        while process.poll() is None:
            own, everything = _memory(process.pid)
            held, resident = max(held, own), max(resident, everything)
            if meanwhile is not None:
                meanwhile()
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise RmkitError(f"{' '.join(command)} failed: {errors.read().decode(errors='replace')[-500:]}")
    return {
        "wall_s": round(seconds, 1),
        "us_per_row": round(seconds / rows * 1e6, 1),
        "cpu_us_per_row": round((_processor_time() - cpu) / rows * 1e6, 1),
        "held_gb": round(held / 1e9, 2),
        "resident_gb": round(resident / 1e9, 2),
    }


def _processor_time() -> float:
    """Seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(pid: int) -> tuple[int, int]:
    """(bytes that are its own, bytes resident) of a process and those that it started."""
    own = everything = 0
    with contextlib.suppress(OSError, ValueError):  # it may end meanwhile
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        sizes = {
            name: 1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmRSS") if name in fields
        }
        own, everything = sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0), sizes.get("VmRSS", 0)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            more = _memory(int(child))
            own, everything = own + more[0], everything + more[1]
    return own, everything


def _beside_a_reader(command: Sequence[str], home: Path, *, rows: int, seed: int) -> dict[str, Any]:
    generate(home / "few.parquet", FEW, seed=seed + 1)
    _measured([*RMKIT, "ingest", str(home / "few.parquet"), "--name", "few", "--yes"], home, rows=FEW)
    _measured([*RMKIT, "export", "few", "-o", str(home / "few"), "--format", "jsonl"], home, rows=FEW)
    row = json.loads(next(iter(sorted((home / "few").glob("*.jsonl")))).read_text().partition("\n")[0])["id"]
    waits: list[float] = []
    faults: list[str] = []
    due = time.perf_counter()

    def look() -> None:
        nonlocal due
        if time.perf_counter() < due:
            return
        start = time.perf_counter()
        for words in (["datasets"], ["why", row]):
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
                status = call(words[0], [*words[1:], "--json"])
            if status or not out.getvalue():
                faults.append(f"{words[0]}: {status} {error.getvalue()[-200:]}")
        waits.append(time.perf_counter() - start)
        due = max(start + 1, time.perf_counter())

    before = os.environ.get("RMKIT_HOME")
    os.environ["RMKIT_HOME"] = str(home)
    try:
        result: dict[str, Any] = _measured(command, home, rows=rows, meanwhile=look)
    finally:
        os.environ.pop("RMKIT_HOME") if before is None else os.environ.update(RMKIT_HOME=before)
    return result | {
        "reads": 2 * len(waits),
        "faults": faults,
        "median_s": round(statistics.median(waits), 2),
        "worst_s": round(max(waits), 2),
    }


def _tokenizer(place: Path) -> None:
    """One that is trained on some of the rows."""
    import pyarrow.parquet as pq

    from evaluation.benchmarks.training.run import write_tokenizer

    some = next(pq.ParquetFile(place / "rows.parquet").iter_batches(2000, columns=["prompt"]))
    write_tokenizer(place / "model", map(str, some["prompt"].to_pylist()))


def _text(results: Mapping[int, Mapping[str, Any]]) -> str:
    heads = (f"{rows:,} rows: s, us a row, CPU us a row, GB held, resident" for rows in results)
    lines = [("stage", *heads, "last / first, clock", "CPU")]
    sizes = list(results.values())
    for name in STAGES:
        cells = [", ".join(str(one[name][key]) for key in KEYS) if name in one else "-" for one in sizes]
        measured = [one[name] for one in sizes if name in one]
        if measured:
            growth = [measured[-1][key] / measured[0][key] for key in ("us_per_row", "cpu_us_per_row")]
            lines.append((name, *cells, *(f"{one:.2f}" for one in growth)))
    head, *rest = lines
    text = display.table(head, rest)
    for rows, one in results.items():
        if "reader" in one:
            seen = one["reader"]
            text += (
                f"\nbeside the ingest of {rows:,} rows: {seen['reads']} reads, {len(seen['faults'])} errors, a pair "
                f"of reads took {seen['median_s']} s in the median and {seen['worst_s']} s at most"
            )
    return text
