"""A file of scores that survives being killed: it grows as OUT.part and becomes OUT when the last item is in it.

One JSON object a line, in the order of the input:

    {"id": ..., "unscored": null | why the row could not be read,
     "scores": [{"value", "normalized", "std", "steps", "aspects", "rationale", "truncated", "unscored"}, ...]}

`value` is null where `unscored` says why. OUT.run.json says what the numbers are numbers of: model, fingerprint,
calibration, data digest, options. Rows are appended a window at a time, synced to disk. Going on cuts back to the last
whole window (the last bits of a score may depend on what is batched together), so the finished file has the same bytes
as that of an unbroken run, and no item that is in the file is scored again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmkit.atomic import write_text
from rmkit.config import read_object
from rmkit.data.reasons import counted
from rmkit.errors import BusyError, StoreError, UsageError
from rmkit.types import Score

PART, RUN = ".part", ".run.json"


@dataclass(slots=True)
class Tally:
    """Items and responses so far; `unscored` counts responses (and unreadable rows) by reason."""

    items: int = 0
    responses: int = 0
    scored: int = 0
    unscored: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one line of the file."""
        self.items += 1
        self.responses += len(row["scores"])
        reasons = [row["unscored"]] if row["unscored"] else [score["unscored"] for score in row["scores"]]
        self.scored += sum(reason is None for reason in reasons)
        self.unscored.update(counted(reason for reason in reasons if reason))


@dataclass(slots=True)
class ScoreFile:
    """An open OUT.part; `tally` covers what was there and what was appended, `resumed` the items that were there."""

    path: Path
    header: Mapping[str, Any]
    _descriptor: int
    tally: Tally
    resumed: int

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One window of rows: written and synced."""
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        data = text.encode(errors="backslashreplace")  # a lone surrogate of an id becomes JSON's escape of it
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}; free space and run again") from error
        for row in rows:
            self.tally.add(row)

    def finish(self, **facts: object) -> None:
        """Give the file its own name, with what else is known of it in its record."""
        write_run(self.path, {**self.header, **facts}, self.tally, finished=True)
        os.replace(beside(self.path, PART), self.path)


def line_of(name: str, scores: Sequence[Score], fault: str | None = None) -> dict[str, object]:
    """The JSON-ready line of one item."""
    return {"id": name, "unscored": fault, "scores": [_score(score) for score in scores]}


def _score(score: Score) -> dict[str, object]:
    def known(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else value

    return {
        "value": known(score.value),
        "normalized": known(score.normalized),
        "std": known(score.std),
        "steps": [known(step) for step in score.steps],
        "aspects": {name: known(value) for name, value in score.aspects.items()},
        "rationale": score.rationale,
        "truncated": score.truncated,
        "unscored": score.unscored,
    }


def finished(path: Path, header: Mapping[str, Any], *, fresh: bool) -> Tally | None:
    """The counts of a complete file made from the same things; None where there is none yet.

    Raises UsageError where the file at `path`, complete or begun, was made from other things, or is none of ours.
    """
    if fresh:
        return None
    run = beside(path, RUN)
    if not run.is_file():
        if path.exists():
            raise UsageError(f"{path} exists and is no file of scores; name another one with -o, or use --fresh")
        return None
    keys = {"made_from": dict}
    summary = read_object(run, raises=UsageError, hint="use --fresh, or name another file with -o", keys=keys)
    if differing := sorted(key for key, value in header["made_from"].items() if summary["made_from"].get(key) != value):
        was = ", ".join(f"{key} {_short(summary['made_from'].get(key))}" for key in differing)
        now = ", ".join(f"{key} {_short(header['made_from'][key])}" for key in differing)
        raise UsageError(f"{path} was begun with {was}; now it is {now}: name another file with -o, or use --fresh")
    if summary.get("finished") and path.exists():
        counts = summary["counts"]
        return Tally(counts["items"], counts["responses"], counts["scored"], Counter(counts["unscored"]))
    return None


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def open_scores(path: Path, header: Mapping[str, Any], *, window: int, fresh: bool = False) -> Iterator[ScoreFile]:
    """The begun file at `path`, cut back to whole windows, or a new one; locked for this process.

    Raises BusyError where another process writes it, StoreError where it cannot be written.
    """
    part = beside(path, PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise StoreError(f"cannot write {part}: {error.strerror}; name another file with -o") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(f"another process is writing {part}; wait for it to end") from error
        if fresh or not beside(path, RUN).is_file():
            os.ftruncate(descriptor, 0)
        tally, size = _whole_windows(part, window)
        os.ftruncate(descriptor, size)
        write_run(path, header, tally, finished=False)
        yield ScoreFile(path, header, descriptor, tally, tally.items)
    finally:
        os.close(descriptor)


def _whole_windows(part: Path, window: int) -> tuple[Tally, int]:
    """Counts and bytes of the whole windows at the beginning of the file."""
    tally, size, at = Tally(), 0, 0
    waiting: list[dict[str, Any]] = []
    with part.open("rb") as file:
        for line in file:
            try:
                waiting.append(json.loads(line))
            except (ValueError, RecursionError):
                break  # the line that was being written
            if not line.endswith(b"\n"):
                break
            at += len(line)
            if len(waiting) == window:
                size = at
                for row in waiting:
                    tally.add(row)
                waiting = []
    return tally, size


def write_run(path: Path, header: Mapping[str, Any], tally: Tally, *, finished: bool) -> None:
    counts = {name: getattr(tally, name) for name in ("items", "responses", "scored")}
    summary = {**header, "finished": finished, "counts": counts | {"unscored": dict(tally.unscored)}}
    write_text(beside(path, RUN), json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
