"""Every call of a command that puts names or bytes on disk, failed and killed in turn.

The calls are counted and broken by faults.c, preloaded into this process. It imports rmkit once and forks for each
trial, with a state of its own: a home in use, a model, an export, a backup. After each trial the state must be the one
before or the one after the command, the next start must work, and end as an undisturbed run ends, nothing hidden.

    LD_PRELOAD=/tmp/faults.so python tests/harness/faults.py --state FOLDER train     one JSON object: the trials
    ... --once                                                                        runs it once and prints the count
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars  # noqa: F401
import sklearn.linear_model  # noqa: F401

import rmkit.scoring.command
import rmkit.training.command  # noqa: F401
from data_pipelines.ingest.command import main as ingest  # noqa: F401
from data_pipelines.recipes.recipe import main as run_recipe  # noqa: F401
from evaluation.registry import command as models_command
from rmkit.cli import main as cli
from rmkit.data.example import MANIFEST
from rmkit.ids import file_sha256
from rmkit.ledger import open_ledger
from rmkit.models import load_model
from rmkit.models.artifact import aliases
from rmkit.types import Event
from tests.exports import kind_rows, write_export
from warehouse.events import sync  # noqa: F401
from warehouse.out import export  # noqa: F401
from warehouse.out.manifest import verify_export
from warehouse.safety import backup, restore  # noqa: F401
from warehouse.store import open_warehouse

assert models_command

COMMANDS: dict[str, list[str]] = {
    "ingest": ["ingest", "more.jsonl", "--license", "MIT"],
    "run": ["run", "clean", "--data", "toy"],
    "sync": ["sync"],
    "export": ["export", "toy", "-o", "out/toy"],
    "train": ["train", "lexical", "--data", "data2", "-o", "models/m"],
    "score": ["score", "models/m", "rows.jsonl", "-o", "scores.jsonl", "--window", "16"],
    "calibrate": ["calibrate", "models/m", "--data", "data"],
    "promote": ["models", "promote", "models/n", "hh@prod", "--force", "a trial"],
    "backup": ["backup", "backups/new"],
    "restore": ["restore", "backups/old", "--force"],
}
# A repeated command whose work was already done when it was killed says so.
DONE_BEFORE = {"backup": "exists already", "promote": "already means"}
LEFT = re.compile(r"^\.|\.(tmp|part|partial|writing|rewrite|restoring)$|\.rmkit-")
FAULTS = {"killed": 0, "full": errno.ENOSPC}
HANG_S = 180

calls = ctypes.CDLL(os.environ["LD_PRELOAD"])
calls.faults_log.restype = ctypes.c_char_p


def forked(folder: Path, work: Callable[[], Any], *, nth: int = 0, error: int = 0) -> tuple[int, str, str]:
    """Run `work` in a child that stands in `folder`: its exit status (minus the signal), stdout and stderr."""
    said = [folder.parent / f"{folder.name}.{name}" for name in ("out", "err")]
    if (child := os.fork()) == 0:
        status = 70
        try:
            os.chdir(folder)
            os.environ["RMKIT_HOME"] = str(folder / "home")
            for number, path in enumerate(said, start=1):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(descriptor, number)
            signal.alarm(HANG_S)
            calls.faults_arm(nth, error)
            status = work() or 0
            calls.faults_arm(0, 0) if nth else None
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended), said[0].read_text(), said[1].read_text()


def prepare() -> None:
    """The state before every trial, in the working folder."""
    for name, start, n in (("toy", 0, 60), ("more", 1000, 40)):
        rows = [
            {"prompt": f"What is {i} times {i}?", "chosen": f"It is {i * i} because {i}.", "rejected": f"{i}, I guess."}
            for i in range(start, start + n)
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"prompt": "hi", "response": f"hello {i}"}) + "\n" for i in range(48))
    )
    for seed, name in ((0, "data"), (1, "data2")):
        write_export(Path(name), kind_rows(280, seed=seed), ref=f"{name}@v1")
    for command in (
        ["ingest", "toy.jsonl", "--license", "MIT"],
        ["train", "lexical", "--data", "data", "-o", "models/m"],
        ["train", "lexical", "--data", "data2", "-o", "models/n"],
        ["models", "promote", "models/m", "hh@prod"],
        ["export", "toy", "-o", "out/toy"],
    ):
        assert cli.main(command) == 0, command
    _vote(range(5))
    assert cli.main(["sync"]) == 0
    assert cli.main(["backup", "backups/old"]) == 0
    _vote(range(5, 8))  # the home is ahead of the backup, and of its own warehouse
    card, manifest = Path("out/toy/README.md"), Path("out/toy") / MANIFEST
    card.write_text(card.read_text() + "so that the next export replaces this one\n")
    stated = json.loads(manifest.read_text())
    stated["files"]["README.md"]["sha256"] = file_sha256(card)
    manifest.write_text(json.dumps(stated))


def _vote(numbers: range) -> None:
    with open_warehouse(read_only=True) as connection, open_ledger() as ledger:
        units = connection.execute("SELECT replace(h::VARCHAR, '-', '') FROM unit ORDER BY h").fetchall()
        ledger.append_many(
            [Event(kind="judgment", actor="ada", payload={"unit": units[i][0], "ranks": [0, 1]}) for i in numbers]
        )


def facts() -> dict[str, Any]:
    """What a user has, everything verified on the way; None for what does not exist."""
    with open_ledger() as ledger:
        prod = aliases.current(ledger, "hh@prod")
        found: dict[str, Any] = {"events": ledger.last_seq(), "prod": prod and prod.fingerprint}
    with open_warehouse(read_only=True) as connection:
        found["judgments"] = connection.execute("SELECT count(*) FROM judgment").fetchall()[0][0]
        found["versions"] = connection.execute("SELECT list(digest ORDER BY digest) FROM version").fetchall()[0][0]
    found["model"] = load_model(Path("models/m")).info.fingerprint
    found["calibrated"] = Path("models/m/calibration.json").exists()
    found["export"] = verify_export(Path("out/toy"))["digest"]
    found["old"] = restore.verified(Path("backups/old"))["made_at"]
    found["new"] = Path("backups/new").exists() and bool(restore.verified(Path("backups/new")))
    found["scores"] = Path("scores.jsonl").exists() and len(Path("scores.jsonl").read_text().splitlines())
    return found


def names(folder: Path) -> set[str]:
    """All files, times in names left out; and DuckDB's own log of a killed commit, which the next writer folds in."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".wal")
    return {re.sub(r"replaced-[^-]*Z", "replaced-TIME", path) for path in paths}


def hidden(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if LEFT.search(path.name))


def most_events(home: Path) -> int:
    """Of the ledger and those that were set aside."""
    import sqlite3

    counts = []
    for path in home.glob("ledger.sqlite*"):
        if not path.name.endswith(("-wal", "-shm", "-waiting")):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                counts.append(connection.execute("SELECT count(*) FROM event").fetchone()[0])
    return max(counts, default=0)


class Trials:
    """All trials of one command. `state` is the prepared folder."""

    def __init__(self, name: str, state: Path) -> None:
        self.name, self.state = name, state
        self.before = self._facts(state, "the prepared state")
        clean = self._copy("clean")
        status, out, err = forked(clean, self._counted)
        assert status == 0, err
        count = json.loads(out.splitlines()[-1])
        self.points, self.calls = count["points"], count["calls"].split()
        self.after = self._facts(clean, "an undisturbed run")
        self.names = names(clean)
        assert not hidden(clean), hidden(clean)

    def _counted(self) -> int:
        status = cli.main(COMMANDS[self.name])
        print(json.dumps({"points": calls.faults_count(), "calls": calls.faults_log().decode()}))
        return status

    def _copy(self, name: str) -> Path:
        folder = self.state.parent / name
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.state, folder, symlinks=True))

    def _facts(self, folder: Path, when: str) -> dict[str, Any]:
        status, out, err = forked(folder, lambda: print(json.dumps(facts())))
        assert status == 0, f"{when}: {err}"
        return dict(json.loads(out.splitlines()[-1]))

    def trial(self, nth: int, fault: str) -> list[str]:
        """Break call `nth`; everything that is wrong afterwards."""
        folder = self._copy("trial")
        status, _, err = forked(folder, lambda: cli.main(COMMANDS[self.name]), nth=nth, error=FAULTS[fault])
        wrong = []
        if fault == "killed" and status != -signal.SIGKILL:
            wrong.append(f"was not killed: status {status}")
        if fault != "killed" and (status not in (0, 2) or "Traceback" in err or (status == 2 and err.count("\n") != 1)):
            wrong.append(f"status {status}, stderr {err[-600:]!r}")
        try:
            now = self._facts(folder, "after the fault")
        except AssertionError as error:
            return [*wrong, f"lost: {str(error)[-600:]}"]
        wrong += [
            f"{key} is {value!r}, neither {self.before[key]!r} nor {self.after[key]!r}"
            for key, value in now.items()
            if value not in (self.before[key], self.after[key])
        ]
        if status == 0 and now != self.after:
            wrong.append(f"status 0, but the state is {now}")
        forked(folder, lambda: cli.main(["datasets"]))
        if left := hidden(folder / "home"):
            wrong.append(f"hidden after the next start: {left}")
        status, _, err = forked(folder, lambda: cli.main(COMMANDS[self.name]))
        done = self.name in DONE_BEFORE and DONE_BEFORE[self.name] in err
        if status != 0 and not done:
            wrong.append(f"the next run: status {status}, stderr {err[-600:]!r}")
        if (now := self._facts(folder, "after the next run")) != self.after:
            wrong.append(f"after the next run: {now}, expected {self.after}")
        if left := hidden(folder):
            wrong.append(f"hidden after the next run: {left}")
        if (found := names(folder)) != self.names:
            wrong.append(f"other files than an undisturbed run: {sorted(found ^ self.names)}")
        if (most := most_events(folder / "home")) < self.before["events"]:
            wrong.append(f"the fullest ledger holds {most} events, {self.before['events']} were there")
        return wrong


def main() -> Iterator[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("command", choices=COMMANDS)
    options = parser.parse_args()
    state = options.state.resolve()
    if not state.exists():
        state.mkdir(parents=True)
        status, _, err = forked(state, prepare)
        assert status == 0, err
    if options.once:
        folder = Path(shutil.copytree(state, state.parent / "once", symlinks=True))
        os.chdir(folder)
        os.environ["RMKIT_HOME"] = str(folder / "home")
        before = calls.faults_count()
        assert cli.main(COMMANDS[options.command]) == 0
        yield {"before": before, "points": calls.faults_count()}
        shutil.rmtree(folder)
        return
    start = time.monotonic()
    trials = Trials(options.command, state)
    wrong = {
        f"{trials.calls[nth - 1]} {nth} {fault}": found
        for nth in range(1, trials.points + 1)
        for fault in FAULTS
        if (found := trials.trial(nth, fault))
    }
    kinds = {call: trials.calls.count(call) for call in sorted(set(trials.calls))}
    yield {"points": trials.points, "calls": kinds, "wrong": wrong, "seconds": round(time.monotonic() - start, 1)}


if __name__ == "__main__":
    assert duckdb
    for result in main():
        print(json.dumps(result))
