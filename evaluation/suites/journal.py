"""The answers of one model to one suite, kept as they come: what makes an evaluation resumable.

A run's folder is named after what it measures (suite, data and model fingerprint), so the same command finds it again:

    $RMKIT_HOME/runs/eval/SUITE-KEY/
        run.json        what is measured: suite, its hash, model, fingerprint
        answers.jsonl   one line per answered item, appended a batch at a time and synced to disk
        credits.parquet what every item earned: paired comparisons and the leaderboard need no data and no model
        result.json     the finished result, for reports and the leaderboard

A batch is one write, so after `kill -9` the file holds whole batches and at most one cut-off line, which is dropped on
opening; an item that has a line is never asked again. A lock keeps a second process from the same run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.suites.items import Answer, Credit
from rmkit import paths
from rmkit.atomic import draft_file, write_text
from rmkit.config import read_object
from rmkit.errors import BusyError, StoreError
from rmkit.ids import digest

ANSWERS, RUN, RESULT, CREDITS = "answers.jsonl", "run.json", "result.json", "credits.parquet"


@dataclass(slots=True)
class Journal:
    """`answers` by item: what was there on opening and what was appended since."""

    folder: Path
    _descriptor: int
    answers: dict[str, Answer] = field(default_factory=dict)

    def append(self, answers: Sequence[Answer]) -> None:
        """Keep a batch of answers: one write, synced."""
        lines = "".join(json.dumps(as_row(answer), allow_nan=False) + "\n" for answer in answers).encode()
        try:
            written = os.write(self._descriptor, lines)
            os.fsync(self._descriptor)
        except OSError as error:
            raise StoreError(f"{self.folder / ANSWERS} cannot be written: {error.strerror}; free disk space") from error
        if written != len(lines):
            raise StoreError(f"{self.folder / ANSWERS}: only {written} of {len(lines)} bytes written; free disk space")
        self.answers.update((answer.item, answer) for answer in answers)


def run_folder(suite: str, suite_hash: str, fingerprint: str) -> Path:
    """Where the answers of that model to that suite are kept."""
    return paths.home() / "runs" / "eval" / f"{suite}-{digest([suite_hash, fingerprint])[:12]}"


@contextlib.contextmanager
def open_journal(folder: Path, facts: Mapping[str, Any], *, fresh: bool = False) -> Iterator[Journal]:
    """The journal of a run, locked for this process; `fresh` forgets what was answered.

    Raises BusyError where another process is running the same evaluation, StoreError where the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ANSWERS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise StoreError(f"cannot use {folder}: {error.strerror}; set RMKIT_HOME to a writable folder") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(f"another process is running this evaluation ({folder}); wait for it to end") from error
        if fresh:
            os.ftruncate(descriptor, 0)
            (folder / RESULT).unlink(missing_ok=True)
        write_text(folder / RUN, json.dumps(dict(facts), indent=2, default=str) + "\n")
        yield Journal(folder, descriptor, _read(folder / ANSWERS, descriptor))
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int) -> dict[str, Answer]:
    """The answers on disk; a cut-off last line is removed from the file."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.ftruncate(descriptor, whole)
    answers = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            answer = from_row(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path}, line {number} is damaged ({error}); run again with --fresh") from error
        answers[answer.item] = answer
    return answers


def as_row(answer: Answer) -> dict[str, Any]:
    """The answer as a JSON object, null for NaN, without what is empty."""
    row: dict[str, Any] = {"item": answer.item}
    for name in ("scores", "p", "steps"):
        if values := getattr(answer, name):
            row[name] = [None if math.isnan(value) else value for value in values]
    if not math.isnan(answer.predicted):
        row["predicted"] = answer.predicted
    if answer.unscored:
        row["unscored"] = answer.unscored
    if not math.isnan(answer.latency_ms):
        row["latency_ms"] = round(answer.latency_ms, 4)
    return row


def from_row(row: Mapping[str, Any]) -> Answer:
    """The answer of a JSON object."""
    return Answer(
        item=row["item"],
        scores=_floats(row.get("scores")),
        p=_floats(row.get("p")),
        steps=_floats(row.get("steps")),
        predicted=row.get("predicted", math.nan),
        unscored=row.get("unscored"),
        latency_ms=row.get("latency_ms", math.nan),
    )


def _floats(values: Sequence[float | None] | None) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values or ())


def write_result(folder: Path, result: Mapping[str, Any], credits: Sequence[Credit]) -> None:
    """Put `credits.parquet` and then `result.json` in place, each whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(credit, name) for credit in credits] for name in Credit.__slots__}
    with draft_file(folder / CREDITS) as draft:
        pq.write_table(pa.table(columns), draft, compression="zstd")
    write_text(folder / RESULT, json.dumps(dict(result), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_result(path: Path) -> dict[str, Any]:
    """A finished result. Raises StoreError for one that cannot be read or does not say how it counts the unscored."""
    result = read_object(path, raises=StoreError, hint="evaluate again with --fresh", keys={"models": list})
    if "unscored" not in result:
        raise StoreError(
            f"{path} is of an earlier version and does not count what is unscored; delete its folder, evaluate again"
        )
    return result


def read_credits(folder: Path) -> list[Credit]:
    """The credits of a finished run. Raises StoreError where they are absent or unreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [Credit(**row) for row in pq.read_table(folder / CREDITS).to_pylist()]
    except (OSError, pa.ArrowInvalid, TypeError) as error:
        raise StoreError(f"{folder / CREDITS} cannot be read: {error}; evaluate again with --fresh") from error
