"""The rows of a split as token ids, encoded once: in several processes, part by part, kept under $RMKIT_HOME/tokens.

A store is bound to all that its ids follow from: the bytes of the export, the split and how much of it is read, the
chat (template, tokenizer, truncation), the objective with its options, what ratings mean, and the code. Whoever needs
one that is not there makes it under a lock, so that the processes of a node wait for the first; parts that a killed run
left whole are not encoded again. Whoever makes one removes those that were not opened for a month.
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import json
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmkit import paths
from rmkit.atomic import write_text
from rmkit.cli import display
from rmkit.data.example import EXAMPLE_SCHEMA, Example, as_examples, read_manifest
from rmkit.errors import DataError
from rmkit.ids import content_hash, file_sha256
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.source_digest import source_digest
from rmkit.training.objectives.objective import Objective
from rmkit.training.tokens.store import INDEX, LOCK, StoredRows, read_part, remove_unused, write_part

if TYPE_CHECKING:
    from rmkit.chat.encode import Chat

PART_ROWS = 4096
ALONE = 4096  # rows that one process has encoded before others have started


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `start` to `stop` of one row group of one file."""

    file: str
    group: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to encode any part of a split; `wanted` are ids, None takes all."""

    folder: Path
    split: str
    wanted: frozenset[str] | None
    chat: Chat
    objective: Objective
    head: RatingHead | None
    validation: bool
    target: Path
    slices: tuple[Slice, ...]

    def encode(self, number: int) -> None:
        """Write a part, unless it is there."""
        from rmkit.training.data import read_rows

        path = self.target / f"{number:05d}.arrow"
        if path.with_suffix(".json").is_file():
            return
        examples = read_slice(self.folder, self.slices[number], split=self.split, wanted=self.wanted)
        rows, skipped = read_rows(
            examples, self.chat, objective=self.objective, head=self.head, validation=self.validation
        )
        write_part(path, rows, skipped)


def stored_rows(
    folder: Path,
    names: Sequence[str],
    chat: Chat,
    *,
    objective: Objective,
    head: RatingHead | None = None,
    validation: bool = False,
    at_most: int | None = None,
    workers: int | None = None,
) -> StoredRows:
    """The rows of the first split among `names` that the export has, `at_most` so many of them (drawn by their ids).

    Encoded by `workers` processes (default: one a core that this process may use). Raises DataError where the export
    cannot be read or has no such split.
    """
    parts = {
        "files": _content(folder),
        "split": [list(names), at_most, validation],
        "chat": chat.fingerprint,
        "objective": [objective.name(), asdict(objective), None if head is None else head.as_json()],
        "code": source_digest("rmkit", *_own_package(objective)),
    }
    target = paths.home() / "tokens" / _key(parts)
    if (target / INDEX).is_file():
        return StoredRows(target)
    target.mkdir(parents=True, exist_ok=True)
    with (target / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process
        if not (target / INDEX).is_file():
            split, slices, n_rows = _slices(folder, names)
            wanted = None if at_most is None else drawn(_ids(folder, split), at_most)
            job = Job(folder, split, wanted, chat, objective, head, validation, target, tuple(slices))
            _encode(job, n_rows, workers=workers)
            counts = [asdict(read_part(target / f"{number:05d}.arrow")) for number in range(len(slices))]
            write_text(target / INDEX, json.dumps({**parts, "parts": counts}, default=repr) + "\n")
    remove_unused(target.parent)
    return StoredRows(target)


def stored_head(folder: Path, names: Sequence[str], objective: Objective) -> RatingHead | None:
    """What `objective.head` makes of a split; read once where that is not nothing."""
    if type(objective).head is Objective.head:
        return None
    parts = [_content(folder), list(names), objective.name(), asdict(objective)]
    code = source_digest("rmkit", *_own_package(objective))
    path = paths.home() / "tokens" / f"head-{_key([parts, code])}.json"
    if path.is_file():
        return RatingHead.of(json.loads(path.read_text()))
    split, slices, _ = _slices(folder, names)
    result = objective.head(row for one in slices for row in read_slice(folder, one, split=split))
    if result is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(result.as_json()))
    return result


def count_rows(folder: Path, names: Sequence[str]) -> int:
    """Rows of the first split among `names` that the export has, usable or not. Raises DataError without one."""
    return _slices(folder, names)[2]


def drawn(ids: Iterable[str], n: int) -> frozenset[str]:
    """Of the ids the n whose hashes are smallest: the same in every run, and part of every larger draw."""
    return frozenset(heapq.nsmallest(n, ids, key=lambda one: hashlib.sha256(one.encode()).digest()))


def read_slice(folder: Path, part: Slice, *, split: str, wanted: frozenset[str] | None = None) -> Iterator[Example]:
    """The examples of a split in a slice, in order, a few hundred at a time."""
    at = 0
    try:
        file = pq.ParquetFile(folder / part.file)
        for batch in file.iter_batches(batch_size=512, row_groups=[part.group]):
            first, last = max(part.start - at, 0), min(part.stop - at, len(batch))
            at += len(batch)
            if first < last:
                table = as_examples(pa.Table.from_batches([batch.slice(first, last - first)]))
                table = table.select(EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA)
                for row in table.filter(pc.equal(table["split"], split)).to_pylist():
                    if wanted is None or row["id"] in wanted:
                        yield Example(row)
            if at >= part.stop:
                return
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder} cannot be read as rows: {error}; export the version again") from error


def _files(folder: Path) -> list[str]:
    return [name for name in sorted(read_manifest(folder)["files"]) if name.endswith(".parquet")]


def _content(folder: Path) -> list[tuple[str, str]]:
    return [(name, file_sha256(folder / name)) for name in _files(folder)]


def _key(parts: object) -> str:
    """The name of what follows from these parts; what JSON does not know counts by its repr."""
    return content_hash(json.dumps(parts, sort_keys=True, default=repr))


def _own_package(objective: Objective) -> list[str]:
    """The package of an objective that is not built in: its code decides, too, which rows there are."""
    package = type(objective).__module__.partition(".")[0]
    return [] if package in ("rmkit", "__main__") else [package]


def _ids(folder: Path, split: str) -> Iterator[str]:
    for name in _files(folder):
        for batch in pq.ParquetFile(folder / name).iter_batches(columns=["id", "split"]):
            yield from batch.filter(pc.equal(batch["split"], split))["id"].to_pylist()


def _slices(folder: Path, names: Sequence[str]) -> tuple[str, list[Slice], int]:
    """The split that is read, the slices that hold rows of it, and how many rows those are."""
    counts: Counter[str] = Counter()
    by_group: list[tuple[str, int, int, Counter[str]]] = []
    try:
        for name in _files(folder):
            file = pq.ParquetFile(folder / name)
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=["split"])["split"]
                own = Counter({str(one["values"]): one["counts"] for one in column.value_counts().to_pylist()})
                by_group.append((name, group, len(column), own))
                counts += own
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder} cannot be read as rows: {error}; export the version again") from error
    split = next((one for one in names if counts[one]), None)
    if split is None:
        known = ", ".join("rows without one" if one == "None" else one for one in sorted(counts)) or "no rows"
        raise DataError(f"{folder} has no rows in split {names[-1]!r}; it has: {known} (or use --split all)")
    slices = []
    for name, group, n, own in by_group:
        size = max(PART_ROWS, -(-n // 64))  # each slice decodes what stands before it in its row group
        if own[split]:
            slices += [Slice(name, group, start, min(start + size, n)) for start in range(0, n, size)]
    return split, slices, counts[split]


def _encode(job: Job, n_rows: int, *, workers: int | None) -> None:
    """All parts that are not there yet."""
    todo = [number for number in range(len(job.slices)) if not (job.target / f"{number:05d}.json").is_file()]
    importable = type(job.objective).__module__ != "__main__"
    alone = (n_rows if job.wanted is None else len(job.wanted)) <= ALONE or not importable
    processes = min(workers or len(os.sched_getaffinity(0)), len(todo))
    with display.progress("encoding", len(todo)) as advance:
        if alone or processes < 2:
            for number in todo:
                job.encode(number)
                advance(1)
        else:
            _in_processes(job, todo, processes=processes, advance=advance)


def _in_processes(job: Job, todo: Sequence[int], *, processes: int, advance: Any) -> None:
    """Each worker gets a part when it is done with the one before; it ends with this process."""
    path = job.target / "job.pickle"
    path.write_bytes(pickle.dumps(job))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    queue: SimpleQueue[int] = SimpleQueue()
    for number in todo:
        queue.put(number)
    faults: list[str] = []

    def attend() -> None:
        command = [sys.executable, "-m", "rmkit.training.tokens.worker", str(path)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            while not faults:
                try:
                    number = queue.get_nowait()
                except Empty:
                    break
                try:
                    process.stdin.write(f"{number}\n")
                    process.stdin.flush()
                    answer = process.stdout.readline().strip()
                except OSError as error:
                    answer = str(error)
                if answer != "done":
                    faults.append(answer or f"a process that encoded part {number} ended; run the command again")
                    break
                advance(1)
            process.stdin.close()

    threads = [threading.Thread(target=attend) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path.unlink(missing_ok=True)
    if faults:
        raise DataError(faults[0])
