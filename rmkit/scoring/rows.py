"""What `rmkit score` reads: prompts with their responses, one item a row, whatever a row looks like.

    export      NAME@VERSION or an export folder: every row of the split that has responses
    Parquet     the same columns as an export, or one of the forms below as columns
    JSON lines  plain or gzip; a row has `prompt` (text or messages, see `rmkit.chat.reader`) and one of
                    response or completion          text, messages, or an object with `text`, `messages` or `steps`
                    responses or completions        a list of those
                    chosen and rejected             in this order
                    response_a and response_b       in this order
                    steps                           texts of one response's steps, joined by blank lines
                or, without `prompt`, `messages` or `conversations` that end with the response's assistant turn
                `id` names the row, its line number where there is none; `tools`, `rubric` (lists of objects) and
                `reference` (the right answer) belong to the prompt

A row that cannot be read is an item with a fault, in its place: nothing is dropped.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmkit.chat.reader import read_candidates, read_steps, split_conversation
from rmkit.data.example import MANIFEST, Example, as_examples, holds_examples, prompt_facts, read_manifest
from rmkit.data.export_folder import dataset_of, export_folder
from rmkit.data.parquet import MAX_ROW_BYTES, OVER_LIMIT, bounded_tables
from rmkit.errors import DataError, UsageError
from rmkit.ids import file_sha256
from rmkit.storage.address import is_address, redacted
from rmkit.storage.fetch import fetch
from rmkit.types import Candidates

PAIRS = (("chosen", "rejected"), ("response_a", "response_b"))
_DAMAGED = (EOFError, OSError, zlib.error)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row: its id, and either what to score or why that cannot be read."""

    id: str
    candidates: Candidates | None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Rows to score. `digest` says which data that is; `rows` starts anew at every call; `total` where it is known."""

    name: str
    digest: str
    rows: Callable[[], Iterator[ScoreRow]]
    total: int | None = None


def open_source(name: str, *, split: str = "all") -> Source:
    """What `name` is: a file, an export folder or NAME@VERSION. Raises DataError where there is nothing to read."""
    path = fetch(name) if is_address(name) else Path(name)
    if path.is_file():
        if split != "all":
            raise UsageError("--split belongs to a dataset version or an export; a file is scored whole")
        digest = file_sha256(path)
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"PAR1":
            return Source(redacted(name), digest, lambda: _parquet([path]), _rows_in([path]))
        return Source(redacted(name), digest, lambda: _json_lines(path))
    if not path.is_dir() and path.suffix in (".jsonl", ".gz", ".json", ".parquet"):
        raise DataError(f"no such file: {path}")
    return _export(name, split)


def _export(name: str, split: str) -> Source:
    folder = export_folder(name)
    files = sorted(folder / file for file in read_manifest(folder)["files"] if file.endswith(".parquet"))
    identity = dataset_of(folder)
    digest = identity["digest"] or file_sha256(folder / MANIFEST)
    target = None if split == "all" else split
    total = _rows_in(files) if target is None else None
    return Source(identity["ref"] or name, f"{digest}:{split}", lambda: _parquet(files, split=target), total)


def _rows_in(files: Sequence[Path]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return sum(pq.read_metadata(file).num_rows for file in files)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{files[0].parent} cannot be read as Parquet: {error}") from error


def _parquet(files: Sequence[Path], *, split: str | None = None) -> Iterator[ScoreRow]:
    number = 0
    for path in files:
        for table in bounded_tables(path, name=path):
            if table is None:
                number += 1
                yield ScoreRow(str(number), None, OVER_LIMIT.format(MAX_ROW_BYTES / (1 << 20)))
                continue
            exported = holds_examples(table.column_names)
            if exported:
                table = as_examples(table)
            for row in itertools.chain.from_iterable(part.to_pylist() for part in table.to_batches(max_chunksize=256)):
                number += 1
                if split is None or row.get("split") == split:
                    yield _score_row(row, number, _exported if exported else candidates_of)


def _json_lines(path: Path) -> Iterator[ScoreRow]:
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        lines = iter(gzip.GzipFile(fileobj=raw) if packed else raw)
        number = 0
        while True:
            number += 1
            try:
                line = next(lines)
            except StopIteration:
                return
            except _DAMAGED as error:
                yield ScoreRow(str(number), None, f"the file is cut off or damaged here: {error}")
                return
            if line.strip():
                yield _line(line, number)


def _line(line: bytes, number: int) -> ScoreRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return ScoreRow(str(number), None, "not JSON")
    if not isinstance(row, dict):
        return ScoreRow(str(number), None, "not a JSON object")
    return _score_row(row, number, candidates_of)


def _score_row(row: Mapping[str, Any], number: int, read: Callable[[Mapping[str, Any]], Candidates]) -> ScoreRow:
    name = str(number if row.get("id") is None else row["id"])
    try:
        return ScoreRow(name, read(row))
    except (DataError, ValueError, TypeError, KeyError, AttributeError) as error:
        return ScoreRow(name, None, str(error) if isinstance(error, DataError) else f"not a readable row: {error}")


def _exported(row: Mapping[str, Any]) -> Candidates:
    if row["prompt"] is None or None in (row["responses"] or [None]):
        raise DataError("no response to score, or its text was erased")
    return Example(row).candidates


def candidates_of(row: Mapping[str, Any]) -> Candidates:
    """The model's input in a row of one of the forms above. Raises DataError saying what is missing."""
    facts = prompt_facts(row)
    if row.get("prompt") is None:
        conversation = next((row[name] for name in ("messages", "conversations") if row.get(name)), None)
        if conversation is None:
            raise DataError("no prompt")
        return replace(split_conversation(conversation), **facts)
    return replace(read_candidates(row["prompt"], _responses(row)), **facts)


def _responses(row: Mapping[str, Any]) -> list[object]:
    for name in ("responses", "completions"):
        if row.get(name):
            if not isinstance(row[name], list):
                raise DataError(f"{name} must be a list, got {type(row[name]).__name__}")
            return list(row[name])
    for pair in PAIRS:
        if all(row.get(name) is not None for name in pair):
            return [row[name] for name in pair]
    if row.get("steps"):
        return [read_steps(row["steps"])]
    for name in ("response", "completion"):
        if row.get(name) is not None:
            return [row[name]]
    raise DataError("no response: expected response, responses, chosen and rejected, response_a and _b, or steps")
