"""Seeded hostile folders, files and numbers for each command, run in forked children with little memory and time.

python tests/harness/fuzz.py --state FOLDER --cases 200 [--seed N] COMMAND      one JSON object
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars  # noqa: F401
import sklearn.linear_model  # noqa: F401

from data_pipelines.ingest import command as ingest  # noqa: F401
from data_pipelines.recipes import recipe  # noqa: F401
from rmkit.cli import main as cli
from rmkit.data.example import MANIFEST
from rmkit.ids import file_sha256
from rmkit.models.artifact import folder as artifact
from tests.exports import kind_rows, write_export
from warehouse.out import export  # noqa: F401
from warehouse.safety import backup, restore  # noqa: F401

HANG_S, MEMORY_MB = 60, 1500

Random = random.Random


def value(rng: Random) -> Any:
    """Something that a file may hold and nobody expects."""
    deep: Any = 0
    for _ in range(rng.choice((3, 400, 5000))):
        deep = [deep]
    return rng.choice(
        (
            *(None, True, False, -1, 0, 1, 2**63, 10**400, 1e308, math.inf, -math.inf, math.nan, 1e-320, -0.0),
            *("", "\ud800", "\0", "../../etc/passwd", "/dev/zero", "nan", "x" * 100_000, "\x1b[31m", "a\nb", "%s{0}"),
            *([], {}, [None], [[]], {"": None}, {"role": 7}, deep, [0] * 1000, {"role": "user", "content": [7]}),
        )
    )


def text_of(thing: Any) -> str:
    """JSON, as far as it goes: too deep a list is written by hand."""
    try:
        return json.dumps(thing)
    except RecursionError:
        return "[" * 50_000


def mutated(rng: Random, thing: Any) -> Any:
    """The JSON value with one place changed, taken away or doubled."""
    if isinstance(thing, dict) and thing and rng.random() < 0.9:
        key = rng.choice(sorted(thing))
        match rng.randrange(4):
            case 0:
                return {k: v for k, v in thing.items() if k != key}
            case 1:
                return thing | {rng.choice(("", "x", "files", "config", "\ud800")): value(rng)}
            case _:
                return thing | {key: mutated(rng, thing[key])}
    if isinstance(thing, list) and thing and rng.random() < 0.9:
        at = rng.randrange(len(thing))
        match rng.randrange(3):
            case 0:
                return thing[:at] + thing[at + 1 :]
            case 1:
                return [*thing, thing[at]]
            case _:
                return [*thing[:at], mutated(rng, thing[at]), *thing[at + 1 :]]
    return value(rng)


def harm_file(rng: Random, path: Path) -> None:
    """Change the bytes of a file, or what kind of thing it is."""
    data = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    match rng.randrange(10):
        case 0:
            pass
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.name)
        case 3:
            os.mkfifo(path)
        case 4:
            path.symlink_to("/dev/zero")
        case 5:
            path.write_bytes(data[: rng.randrange(len(data) + 1)])
        case 6:
            path.write_bytes(rng.randbytes(rng.randrange(2000)))
        case 7:
            path.write_text("[" * 100_000)
        case _:
            broken = bytearray(data)
            for _ in range(rng.randrange(1, 20)):
                if broken:
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
            path.write_bytes(broken)


def harm_folder(rng: Random, folder: Path, *, seal: Callable[[Path], None] | None = None) -> None:
    """Harm one to three files; JSON mostly stays JSON, and half of the time hashes are made to fit again."""
    for _ in range(rng.randrange(1, 4)):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return
        path = rng.choice(files)
        if path.suffix in (".json", ".jsonl") and rng.random() < 0.8:
            text = path.read_text(errors="replace")
            lines = [text] if path.suffix == ".json" else text.splitlines()
            at = rng.randrange(len(lines) or 1)
            with contextlib.suppress(ValueError, IndexError, RecursionError):
                lines[at] = text_of(mutated(rng, json.loads(lines[at])))
            path.write_text("\n".join(lines) + "\n")
        else:
            harm_file(rng, path)
    if seal and rng.random() < 0.5 and all(path.is_file() or path.is_dir() for path in folder.rglob("*")):
        with contextlib.suppress(Exception):
            seal(folder)


def seal_model(folder: Path) -> None:
    card = json.loads((folder / artifact.CARD).read_text())
    card["files"] = {name: file_sha256(folder / name) for name in card["files"]}
    card["fingerprint"] = artifact.fingerprint(card)
    (folder / artifact.CARD).write_text(json.dumps(card))


def seal_backup(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("ledger.sqlite", "warehouse.duckdb"):
        manifest[name.split(".")[0]]["sha256"] = file_sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def seal_export(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, facts in manifest["files"].items():
        facts["sha256"] = file_sha256(folder / name)
    (folder / MANIFEST).write_text(json.dumps(manifest))


ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "hi", "chosen": "hello there", "rejected": "no"},
    {"prompt": "hi", "response": "hello", "score": 3},
    {"prompt": [{"role": "user", "content": "hi"}], "responses": ["a", "b"], "scores": [1, 2]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}], "label": True},
    {"question": "1+1", "steps": ["so", "2"], "labels": [1, 0]},
    {"prompt": "hi", "response_a": "x", "response_b": "y", "preference": "a", "rater": "ada"},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}], "id": 7},
)


def hostile_rows(rng: Random, path: Path) -> Path:
    """A data file under some name: rows of some form, a few of them mutated, the whole perhaps harmed."""
    form = rng.choice(ROWS)
    rows = [{**form, "prompt": f"number {i}"} if "prompt" in form and i % 2 else dict(form) for i in range(12)]
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(rows))
        rows[at] = mutated(rng, rows[at])
    name = rng.choice(("rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.jsonl.gz", "rows.parquet", "rows"))
    path = path / name
    lines = [text_of(row) for row in rows]
    if name == "rows.json":
        path.write_text("[" + ",".join(lines) + "]")
    elif name.endswith("sv"):
        mark = "," if name == "rows.csv" else "\t"
        path.write_text(
            "\n".join(mark.join(map(text_of, row.values() if isinstance(row, dict) else [row])) for row in rows)
        )
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress("\n".join(lines).encode())[: rng.choice((None, None, 40))])
    elif name == "rows.parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            pq.write_table(pa.Table.from_pylist([row for row in rows if isinstance(row, dict)]), path)
        except Exception:
            path.write_bytes(b"PAR1" + rng.randbytes(100) + b"PAR1")
    else:
        path.write_bytes("\n".join(lines).encode())
    if rng.random() < 0.3:
        harm_file(rng, path)
    return path


NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1", "1e400", "1e-400", "9" * 400, str(2**63), "", "x", "0.5", "1_000")


def toml(rng: Random, path: Path, table: dict[str, Any]) -> Path:
    """A TOML file with one wrong value, or no TOML at all."""
    path = path / "odd.toml"
    key = rng.choice(sorted(table))
    odd = rng.choice(
        (
            "nan",
            "inf",
            "-1",
            "0",
            "1e308",
            "9" * 5000,
            '""',
            "[]",
            "{}",
            "[" * 20_000,
            "true",
            '"x"',
            "1979-05-27",
            "[1]",
        )
    )
    lines = [f"{name} = {odd if name == key else json.dumps(v)}" for name, v in table.items()]
    if rng.random() < 0.3:
        lines.append(rng.choice(("x = 1", "[[a]]", "=", "\ud800", f"{key} = 1")))
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.15:
        harm_file(rng, path)
    return path


def _verify(rng: Random, here: Path) -> list[str]:
    harm_folder(rng, here / "model", seal=seal_model)
    return ["verify", "model"]


def _load(rng: Random, here: Path) -> list[str]:
    harm_folder(rng, here / "model", seal=seal_model)
    return rng.choice(
        (
            ["score", "model", "rows.jsonl", "-o", "out"],
            ["calibrate", "model", "--data", "data"],
            ["eval", "model", "--data", "data"],
            ["models", "card", "model"],
            ["models"],
        )
    )


def _score(rng: Random, here: Path) -> list[str]:
    rows = hostile_rows(rng, here)
    if rng.random() < 0.2:  # an earlier run's files
        for name in ("out.run.json", "out.part", "out"):
            (here / name).write_text(
                text_of(mutated(rng, {"made_from": {"model": "x"}, "counts": {}, "finished": True}))
            )
    return ["score", "model", str(rows), "-o", "out"]


def _ingest(rng: Random, here: Path) -> list[str]:
    rows = hostile_rows(rng, here)
    if rng.random() < 0.2:
        toml(rng, here, {"license": "MIT", "url": "x"}).rename(rows.with_name(rows.name + ".source.toml"))
    return ["ingest", str(rows)]


def _numbers(rng: Random, here: Path) -> list[str]:
    number = rng.choice(NUMBERS)
    return rng.choice(
        (
            ["ingest", "pairs.jsonl", "--limit", number],
            ["ingest", "pairs.jsonl", "--max-line-mb", number],
            ["noise", "toy", "--rate", number],
            ["score", "model", "rows.jsonl", "-o", "out", "--window", number],
            ["train", "lexical", "--data", "data", "--seed", number, "-o", "new"],
            ["diff", "toy@v1", "toy@v1", "--rows", number],
            ["eval", "model", "--data", "data", "--seed", number],
            ["sample", "sampled", "--pairs", number if len(number) < 5 else "-5", "--seed", number],
            ["models", "promote", "model", "hh@prod", "--margin", number],
            ["datasets", number],
            ["why", number],
            ["export", f"toy@v{number}"],
            ["tag", "toy", number],
        )
    )


def _export_folder(rng: Random, here: Path) -> list[str]:
    harm_folder(rng, here / "exported", seal=seal_export)
    return rng.choice(
        (
            ["export", "--verify", "exported"],
            ["train", "lexical", "--data", "exported", "-o", "new"],
            ["eval", "model", "--data", "exported"],
            ["score", "model", "exported", "-o", "out"],
            ["export", "toy", "-o", "exported"],
        )
    )


def _restore(rng: Random, here: Path) -> list[str]:
    harm_folder(rng, here / "backup", seal=seal_backup)
    return ["restore", "backup", *rng.choice(([], ["--force"]))]


def _config(rng: Random, here: Path) -> list[str]:
    if rng.random() < 0.5:
        path = toml(rng, here, {"hash_bits": 12, "c_grid": [1.0], "max_iter": 50})
        return ["train", "lexical", "--data", "data", "-o", "new", "--config", str(path)]
    path = toml(rng, here, {"recipe": {}, "step": [], "use": "quality", "name": "x"})
    return ["run", str(path), "--data", "toy"]


def _home(rng: Random, here: Path) -> list[str]:
    """A home whose files are damaged."""
    harm_folder(rng, here / "home")
    return rng.choice((["datasets"], ["sync"], ["models"], ["backup", "b2"], ["export", "toy"], ["leaderboard"]))


COMMANDS: dict[str, Callable[[Random, Path], list[str]]] = {
    "verify": _verify,
    "load": _load,
    "score": _score,
    "ingest": _ingest,
    "numbers": _numbers,
    "export": _export_folder,
    "restore": _restore,
    "config": _config,
    "home": _home,
}


def prepare() -> None:
    """What the cases harm copies of, in the working folder."""
    rows = [{"prompt": f"q {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(20)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("rows.jsonl").write_text('{"prompt": "hi", "response": "hello"}\n' * 3)
    write_export(Path("data"), kind_rows(120))
    for command in (
        ["ingest", "pairs.jsonl", "--name", "toy", "--license", "MIT"],
        ["sync"],
        ["train", "lexical", "--data", "data", "-o", "model"],
        ["models", "promote", "model", "hh@prod"],
        ["export", "toy", "-o", "exported"],
        ["backup", "backup"],
    ):
        assert cli.main(command) == 0, command


def child(folder: Path, work: Callable[[], Any]) -> dict[str, Any]:
    """Status, stderr, seconds and peak memory of `work` in a forked child that stands in `folder`."""
    err, start = folder.parent / f"{folder.name}.err", time.monotonic()
    if (pid := os.fork()) == 0:
        status = 70
        try:
            os.chdir(folder)
            os.environ["RMKIT_HOME"] = str(folder / "home")
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # of addresses; the machine survives
            signal.alarm(HANG_S)
            status = work() or 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(status)
    _, ended, usage = os.wait4(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(ended),
        "stderr": err.read_text(errors="replace"),
        "seconds": time.monotonic() - start,
        "megabytes": usage.ru_maxrss / 1024,
    }


def fault(done: dict[str, Any]) -> str | None:
    """What is wrong about the way a command ended."""
    status, stderr = done["status"], done["stderr"]
    if status == -signal.SIGALRM:
        return f"hung for {HANG_S} s"
    if status not in (0, 1, 2) or "Traceback" in stderr:
        return f"status {status}: {stderr[-900:]}"
    if (
        status == 2
        and not stderr.startswith("usage:")
        and [stderr.startswith("rmkit: "), stderr.count("\n")] != [True, 1]
    ):
        return f"not one line: {stderr[:300]!r}"
    return f"{done['megabytes']:.0f} MB" if done["megabytes"] > MEMORY_MB else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone; its folder stays")
    parser.add_argument("command", choices=COMMANDS)
    options = parser.parse_args()
    state = options.state.resolve()
    if not state.exists():
        state.mkdir(parents=True)
        assert (done := child(state, prepare))["status"] == 0, done
    statuses, wrong, slowest, largest = Counter[int](), {}, 0.0, 0.0
    for case in range(options.cases) if options.only is None else (options.only,):
        folder = state.parent / f"{options.command}-case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(state, folder, symlinks=True)
        rng = Random(f"{options.seed} {options.command} {case}")
        os.chdir(folder)
        arguments = COMMANDS[options.command](rng, folder)
        done = child(folder, lambda arguments=arguments: cli.main(arguments))  # type: ignore[misc]
        statuses[done["status"]] += 1
        slowest, largest = max(slowest, done["seconds"]), max(largest, done["megabytes"])
        if why := fault(done):
            wrong[f"{case}: rmkit {' '.join(arguments)[:200]}"] = why
    print(
        json.dumps(
            {
                "cases": sum(statuses.values()),
                "statuses": dict(sorted(statuses.items())),
                "slowest_s": round(slowest, 1),
                "largest_mb": round(largest),
                "wrong": wrong,
            }
        )
    )


if __name__ == "__main__":
    main()
