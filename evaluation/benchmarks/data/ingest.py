"""`rmkit bench ingest`: loading generated pairs of about 1 KB, beside what DuckDB and polars need for the bare bytes.

Three child processes, one after another, on the same Parquet file:

    rmkit    rmkit ingest: every row checked, exact duplicates found, labels derived, a version committed and on disk
    duckdb   CREATE TABLE AS SELECT * FROM the file, into a database file, checkpointed
    polars   read the file, write it again (zstd)

Of every 100 rows one is unusable (blank prompt, missing response or equal responses, in turn) and two repeat an earlier
row; the run fails unless exactly these are found. Times are wall clock, memory is the child's peak resident set.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.benchmarks.memory import peak_bytes
from rmkit.cli import arguments, display
from rmkit.errors import RmkitError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 50_000
PHRASES = {"prompt": 9, "chosen": 17, "rejected": 17}  # of 24 characters on average: about 1 KB a pair
STEPS = ("store_units", "store_origins", "store_judgments", "derive_examples")


def generate(path: Path, n: int, *, seed: int = 0) -> dict[str, int]:
    """Write n pairs to a Parquet file; how many of them are unusable and how many repeat an earlier one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    phrases = pa.array([_phrase(rng) for _ in range(1 << 15)])
    schema = pa.schema([(name, pa.string()) for name in PHRASES])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, n, BLOCK):
            row = np.arange(start, min(start + BLOCK, n))
            origin = np.where(row % 50 == 13, row - 7, row) - start
            columns = {name: _texts(phrases, rng, k, len(row)).take(pa.array(origin)) for name, k in PHRASES.items()}
            writer.write_table(_spoil(pa.table(columns, schema=schema), row))
    row = np.arange(n)
    return {"n_unusable": int((row % 100 == 37).sum()), "n_repeats": int((row % 50 == 13).sum())}


def _phrase(rng: Any) -> str:
    letters = rng.integers(97, 123, rng.integers(12, 37))
    letters[rng.integers(2, 9) :: 7] = 32
    return bytes(letters.tolist()).decode()


def _texts(phrases: Any, rng: Any, k: int, n: int) -> pa.Array:
    """n texts of k phrases each; 15 bits a phrase, so no two are the same by chance."""
    import pyarrow as pa

    columns = [phrases.take(pa.array(rng.integers(0, len(phrases), n))) for _ in range(k)]
    return pa.compute.binary_join_element_wise(*columns, ". ")


def _spoil(table: Any, row: Any) -> pa.Table:
    """One row in a hundred made unusable: blank prompt, no rejected response, rejected the same as chosen."""
    import pyarrow as pa

    def where(fault: int) -> pa.Array:
        return pa.array((row % 100 == 37) & (row // 100 % 3 == fault))

    choose = pa.compute.if_else
    prompt = choose(where(0), " ", table["prompt"])
    rejected = choose(where(1), None, choose(where(2), table["chosen"], table["rejected"]))
    return pa.table([prompt, table["chosen"], rejected], schema=table.schema)


def rmkit_load(path: Path, out: Path) -> dict[str, object]:
    """The real path of `rmkit ingest`, with the time of each part of it."""
    os.environ["RMKIT_HOME"] = str(out)
    from data_pipelines.ingest.command import ingest
    from rmkit.paths import warehouse_path
    from warehouse.versions import versions
    from warehouse.write import load

    phases: dict[str, float] = {}
    entered = "staged"
    setattr(load, entered, _timed_entry(getattr(load, entered), "hash_texts", phases))
    for step in STEPS:
        setattr(load, step, _timed(getattr(load, step), step, phases))
    versions.commit = _timed(versions.commit, "commit_version", phases)
    report = ingest(path, dataset="bench")
    return {
        "bytes": warehouse_path().stat().st_size,
        "phases_s": phases,
        "n_units": report.n_units,
        "n_rejected": report.n_rejected,
        "n_repeats": report.n_duplicate_units,
        "digest": report.version.digest if report.version else None,
    }


def _timed(function: Callable[..., Any], name: str, phases: dict[str, float]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> object:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            phases[name] = round(phases.get(name, 0.0) + time.perf_counter() - start, 3)

    return call


def _timed_entry(
    manager: Callable[..., Any], name: str, phases: dict[str, float]
) -> Callable[..., contextlib.AbstractContextManager[object]]:
    @contextlib.contextmanager
    def call(*args: Any, **kwargs: Any) -> Iterator[object]:
        start = time.perf_counter()
        with manager(*args, **kwargs) as entered:
            phases[name] = round(phases.get(name, 0.0) + time.perf_counter() - start, 3)
            yield entered

    return call


def duckdb_load(path: Path, out: Path) -> dict[str, object]:
    """DuckDB's bare load, through its checkpoint."""
    import duckdb

    file = out / "bare.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE pair AS SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    return {"bytes": file.stat().st_size}


def polars_copy(path: Path, out: Path) -> dict[str, object]:
    """polars' bare read and write."""
    import polars as pl

    file = out / "copy.parquet"
    pl.read_parquet(path).write_parquet(file, compression="zstd")
    return {"bytes": file.stat().st_size}


CHILDREN: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "rmkit": rmkit_load,
    "duckdb": duckdb_load,
    "polars": polars_copy,
}


def measure(name: str, path: Path, out: Path) -> dict[str, object]:
    """Run one child and return its result with wall_s, cpu_s and peak_rss_gb. Raises RmkitError where it fails."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", __name__, name, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RmkitError(f"the {name} run failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _child(name: str, path: str, out: str) -> None:
    start = time.perf_counter()
    result = CHILDREN[name](Path(path), Path(out))
    used = resource.getrusage(resource.RUSAGE_SELF)
    result |= {
        "wall_s": round(time.perf_counter() - start, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_rss_gb": round(peak_bytes() / 1e9, 2),
    }
    print(json.dumps(result))


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench ingest`. Raises RmkitError where planted faults or repeats were not all found."""
    parser = arguments.parser(
        "bench ingest",
        "Load generated pairs (1 KB each) with validation, exact dedup and a committed version; compare bare loads.",
        examples=["bench ingest", "bench ingest --pairs 100000 --json"],
    )
    parser.add_argument("--pairs", type=int, default=1_000_000, help="how many (default: 1000000)")
    parser.add_seed(help="of the generator")
    parser.add_argument(
        "--out",
        type=arguments.local_path,
        help="work in this folder and keep it (default: a temporary one; about 3 GB)",
    )
    args = parser.parse_args(argv)
    if args.pairs < 1:
        raise UsageError(f"--pairs takes a number of at least 1, got {args.pairs}")
    if args.out:
        result = run(args.out, args.pairs, seed=args.seed)
    else:
        with tempfile.TemporaryDirectory(prefix="rmkit-bench-") as folder:
            result = run(Path(folder), args.pairs, seed=args.seed)
    display.emit(result, as_json=args.json, text=_text(result))
    return 0


def run(out: Path, n: int, *, seed: int) -> dict[str, object]:
    """Generate, measure all three, and check what was found."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"pairs-{n}.parquet"
    with display.progress("bench ingest", total=1 + len(CHILDREN)) as advance:
        planted = generate(path, n, seed=seed)
        advance(1)
        results = {}
        for name in CHILDREN:
            results[name] = measure(name, path, out / f"{name}-{os.getpid()}")
            advance(1)
    ours = results["rmkit"]
    result = {"n_unusable": ours["n_rejected"], "n_repeats": ours["n_repeats"]}
    if result != planted or ours["n_units"] != n - sum(planted.values()):
        raise RmkitError(f"ingest found {result} and {ours['n_units']} units of {n} pairs; planted were {planted}")
    return {
        "pairs": n,
        "seed": seed,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "file_bytes": path.stat().st_size,
        **planted,
        **results,
    }


def _text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['pairs']:,} pairs, {result['cpus']} CPUs; {result['n_unusable']:,} unusable and "
        f"{result['n_repeats']:,} repeated rows were all found",
        "",
        f"{'':<8}{'wall s':>8}{'CPU s':>8}{'peak GB':>9}{'file MB':>9}",
    ]
    for name in CHILDREN:
        row = result[name]
        lines.append(
            f"{name:<8}{row['wall_s']:>8.1f}{row['cpu_s']:>8.1f}{row['peak_rss_gb']:>9.2f}{row['bytes'] / 1e6:>9.0f}"
        )
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["rmkit"]["phases_s"].items())
    return "\n".join([*lines, "", f"of rmkit's seconds: {phases}; the rest is reading, and waiting for it"])


if __name__ == "__main__":
    _child(*sys.argv[1:])
