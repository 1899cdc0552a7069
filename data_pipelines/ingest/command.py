"""`rmkit ingest`: a file or a hub dataset into the warehouse, every row either stored or rejected with a reason."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipelines.ingest.report import as_text, next_commands, rejects, summary
from data_pipelines.ingest.rows import UnitStream
from data_pipelines.sources import detect, find, generic
from data_pipelines.sources.reading.frames import frame_rows
from data_pipelines.sources.reading.hub import open_hub
from data_pipelines.sources.reading.lines import (
    open_rows,
)
from data_pipelines.sources.reading.streams import (
    MAX_LINE_BYTES,
    Item,
    Parsed,
    Reject,
)
from data_pipelines.sources.source import Source
from rmkit import config
from rmkit.cli import arguments, display
from rmkit.errors import DataError, UsageError
from rmkit.ids import digest, file_sha256
from warehouse.store import open_warehouse
from warehouse.write.load import LoadReport, SourceInfo, find_load, load_units
from warehouse.write.units import RATER_KINDS

SAMPLE_ROWS = 50
IN_MEMORY = "rows in memory"  # what stands for their path
SIDECAR = ".source.toml"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known about where a file comes from: the options of the command, or the file's sidecar.

    The sidecar is a TOML file beside the data, FILE.source.toml, with any of these keys.
    """

    url: str | None = None
    revision: str | None = None
    license: str = "unknown"
    license_notes: str | None = None
    is_benchmark: bool = False
    text_origin: str = "unknown"
    pii: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file is to be read. `rater` ("NAME:KIND") stands for a label whose source does not say who gave it."""

    format: str | None = None
    columns: Mapping[str, str] | None = None
    rater: str | None = None
    limit: int | None = None
    max_line_bytes: int = MAX_LINE_BYTES

    def __post_init__(self) -> None:
        if self.columns and self.format not in (None, "generic"):
            raise UsageError(f"--map belongs to the generic format, not to {self.format!r}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit takes a number of rows of at least 1, got {self.limit}")
        if self.rater and self.rater.rpartition(":")[2] not in RATER_KINDS:
            raise UsageError(f"--rater takes NAME:KIND with KIND of {', '.join(RATER_KINDS)}; got {self.rater!r}")

    def label(self, source: Source) -> str:
        """The format as it is recorded: with whatever changes what the same bytes mean."""
        columns = ",".join(sorted(f"{field}={column}" for column, field in (self.columns or {}).items()))
        extras = [columns, f"rater={self.rater}" if self.rater else "", f"limit={self.limit}" if self.limit else ""]
        return " ".join([source.name, *filter(None, extras)])


@dataclass(frozen=True)
class _Input:
    name: str
    path: str
    items: Iterator[Item]
    sha256: str
    size: int | None
    position: Any
    tables: Iterator[pa.Table] | None
    origin: Origin


def ingest(
    data: Any,
    *,
    dataset: str | None = None,
    reading: Reading | None = None,
    origin: Origin | None = None,
    author: str | None = None,
    warehouse: Path | None = None,
) -> LoadReport:
    """Read a file, an hf:// address or rows in memory (see `frame_rows`), store them and commit them as a version of
    `dataset` (default: the file's name, "rows" for rows in memory) in `warehouse` (default: this home's).

    Raises DataError where the file cannot be read, its format is unknown, or none of its rows is usable: nothing is
    stored then. Ingesting the same bytes in the same way again changes nothing.
    """
    reading = reading or Reading()
    opened = _open(data, reading, origin or Origin())
    path = opened.path
    dataset = dataset or slug(opened.name)
    source, items, sample = _recognized(opened, reading, path)
    info = SourceInfo(
        name=_own_name(sample) or dataset,
        path=path,
        format=reading.label(source),
        file_sha256=opened.sha256,
        **{name: getattr(opened.origin, name) for name in Origin.__dataclass_fields__},
    )
    tables = opened.tables if reading.limit is None else None
    stream = UnitStream(items, source, path=path, columns=reading.columns, rater=reading.rater, tables=tables)
    with open_warehouse(warehouse) as connection, display.progress(f"ingest {dataset}", opened.size) as advance:
        if known := find_load(connection, info, dataset):
            return known
        return load_units(
            connection,
            info,
            _watched(stream.batches(), opened.position, advance),
            rejects=stream.rejects,
            n_lines=lambda: stream.n_lines,
            dataset=dataset,
            author=author or _author(),
        )


def _open(data: Any, reading: Reading, origin: Origin) -> _Input:
    if not isinstance(data, str | Path):
        rows = list(frame_rows(data))
        return _Input("rows", IN_MEMORY, iter(rows), rows_digest(rows), None, None, None, origin)
    if str(data).startswith("hf://"):
        hub = open_hub(str(data), revision=origin.revision)
        known = replace(origin, url=origin.url or hub.url)
        if hub.license and origin.license == "unknown":
            known = replace(known, license=hub.license)
        return _Input(hub.name, str(data), hub.items, hub.sha256, None, None, None, known)
    path = Path(data)
    file = open_rows(path, max_line_bytes=reading.max_line_bytes)
    sha256 = file_sha256(path)
    if path.name.startswith("bench_"):
        origin = replace(origin, is_benchmark=True)
    origin = _with_sidecar(path, origin)
    return _Input(path.name, str(data), file.items, sha256, path.stat().st_size, file.position, file.tables, origin)


def rows_digest(rows: Sequence[Item]) -> str:
    """What stands for a file's SHA-256 where rows are in memory."""
    return digest([json.dumps(row, default=str, sort_keys=True) for row in rows])


def _with_sidecar(path: Path, origin: Origin) -> Origin:
    """The sidecar's statements, under what was given by option."""
    sidecar = path.with_name(path.name + SIDECAR)
    if not sidecar.exists():
        return origin
    noted = config.build(Origin, config.read_toml(sidecar), where=str(sidecar))
    plain = Origin()
    inputs = {name: v for name in Origin.__dataclass_fields__ if (v := getattr(origin, name)) != getattr(plain, name)}
    return replace(noted, **inputs)


def _recognized(
    opened: _Input, reading: Reading, path: str | Path
) -> tuple[Source, Iterator[Item], list[dict[str, Any]]]:
    """The format, all items again, and the sample of parsed rows it was told from."""
    items = itertools.islice(opened.items, reading.limit)
    head = _head(items)
    sample = [item.value for item in head if isinstance(item, Parsed)]
    if reading.columns:
        source = find("generic")
        _check_columns(sample, reading.columns, path)
    elif reading.format:
        source = find(reading.format)
    elif sample:
        source = detect(sample, path=path)
    else:
        raise DataError(f"{path}: no row of the first {len(head)} can be read{_reasons(head)}; nothing was stored")
    return source, itertools.chain(head, items), sample


def _head(items: Iterator[Item]) -> list[Item]:
    """Items until SAMPLE_ROWS of them could be parsed, or until it is clear that few can."""
    head: list[Item] = []
    for item in itertools.islice(items, 100 * SAMPLE_ROWS):
        head.append(item)
        if isinstance(item, Parsed) and sum(isinstance(one, Parsed) for one in head) >= SAMPLE_ROWS:
            break
    return head


def _check_columns(sample: list[dict[str, Any]], columns: Mapping[str, str], path: str | Path) -> None:
    names = sorted({name for row in sample for name in row})
    if absent := [column for column in columns if column not in names]:
        raise UsageError(f"{path}: no column {', '.join(absent)} for --map; it has: {', '.join(names)}")


def _reasons(items: Sequence[Item]) -> str:
    reasons = sorted({item.reason for item in items if isinstance(item, Reject)})
    return f" ({'; '.join(reasons[:3])})" if reasons else ""


def _own_name(sample: list[dict[str, Any]]) -> str | None:
    """What the rows call their source, where all of a sample agree."""
    names = {row.get("source") for row in sample}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) and name and "meta" in sample[0] else None


def _watched(batches: Iterator[pa.RecordBatch], position: Any, advance: Any) -> Iterator[pa.RecordBatch]:
    before = 0
    for batch in batches:
        yield batch
        if position is not None:
            now = position()
            advance(max(0, now - before))
            before = max(now, before)


def slug(name: str) -> str:
    """A dataset's name from a file's: pairs_hh.jsonl.gz -> pairs-hh."""
    stem = re.sub(r"(\.(jsonl|ndjson|json|csv|tsv|parquet|gz|zst|zstd))+$", "", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", stem).strip("-.") or "data"


def _author() -> str:
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "unknown"


def main(argv: list[str]) -> int:
    """Entry point of `rmkit ingest`."""
    options = _parser().parse_args(argv)
    if options.rejects:
        return _show_rejects(options.rejects, as_json=options.json)
    if not options.file:
        raise UsageError("rmkit ingest takes at least one file or hf:// address, or --rejects DATASET")
    if options.name and len(options.file) > 1:
        raise UsageError("--name names one dataset, whose versions each hold one file; give one file at a time with it")
    reading = Reading(
        format=options.format,
        columns=generic.parse_map(options.map) if options.map else None,
        rater=options.rater,
        limit=options.limit,
        max_line_bytes=int(options.max_line_mb * (1 << 20)),
    )
    origin = Origin(
        url=options.url, revision=options.revision, license=options.license or "unknown", is_benchmark=options.benchmark
    )
    summaries = []
    for path in options.file:
        summaries.append(summary(ingest(path, dataset=options.name, reading=reading, origin=origin), path))
        if not options.json:
            display.emit({}, as_json=False, text=as_text(summaries[-1], forced=bool(options.format or options.map)))
    display.emit({"files": summaries}, as_json=options.json, text=next_commands(summaries))
    return 0


def _show_rejects(dataset: str, *, as_json: bool) -> int:
    with open_warehouse(read_only=True) as connection:
        rows = rejects(connection, dataset)
    text = "\n".join(f"{row['path']}:{row['line']}: {row['reason']}: {row['excerpt'] or ''}" for row in rows)
    display.emit({"rejects": rows}, as_json=as_json, text=text or f"{dataset}: no rejected rows")
    return 0


def _parser() -> Any:
    parser = arguments.parser(
        "ingest",
        "Bring preference data into the warehouse: every row is stored or rejected with a reason.",
        examples=[
            "ingest pairs.jsonl.gz --license MIT --url https://example.org/pairs",
            "ingest votes.csv --map prompt=question,response_a=left,response_b=right,preference=winner",
            "ingest hf://org/name:train --license Apache-2.0",
            "ingest --rejects pairs",
        ],
    )
    parser.add_argument(
        "file",
        nargs="*",
        help="JSON lines, JSON array, CSV, TSV or Parquet (also .gz, .zst), or hf://ORG/NAME[/CONFIG][:SPLIT]",
    )
    parser.add_argument("--name", metavar="DATASET", help="the dataset to make a version of (default: the file's name)")
    parser.add_argument("--format", metavar="F", help="read as this format instead of detecting it")
    parser.add_argument(
        "--map",
        metavar="FIELD=COLUMN,...",
        help="columns of a file in no known format, e.g. prompt=question,chosen=better,rejected=worse",
    )
    parser.add_argument(
        "--rater", metavar="NAME:KIND", help="who gave labels whose source does not say (default: unstated:human)"
    )
    parser.add_argument("--license", metavar="SPDX", help="license of the data (default: the sidecar's, else unknown)")
    parser.add_argument("--url", help="where the data is published")
    parser.add_argument("--revision", help="its revision there")
    parser.add_argument("--benchmark", action="store_true", help="never train on it; check contamination against it")
    parser.add_limit(help="read only the first N rows")
    parser.add_argument("--max-line-mb", type=float, default=32, metavar="MB", help="reject longer lines")
    parser.add_argument("--rejects", metavar="DATASET", help="list the rejected rows of a dataset instead")
    return parser
