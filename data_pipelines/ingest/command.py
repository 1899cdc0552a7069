"""`rmkit ingest`: a file or a hub dataset into the warehouse, every row either stored or rejected with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipelines.ingest import preview, saved
from data_pipelines.ingest import report as reports
from data_pipelines.ingest.inputs import IN_MEMORY, SIDECAR, Opened, open_inputs, rows_digest
from data_pipelines.ingest.reading import Reading
from data_pipelines.ingest.rows import NothingUsableError, UnitStream
from data_pipelines.sources.form import parse_map
from data_pipelines.sources.scales import scales_of
from rmkit import config
from rmkit.cli import arguments, display
from rmkit.errors import DataError, UsageError
from rmkit.storage.fetch import forget
from rmkit.user import user_name
from warehouse.store import open_warehouse
from warehouse.write.load import LoadReport, SourceInfo, find_load, load_units

__all__ = ["IN_MEMORY", "Origin", "Reading", "ingest", "load", "main", "rows_digest", "slug"]


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

    Raises DataError where the file cannot be read or its format is unknown: nothing is stored then; and where none of
    its rows is usable: then the reasons are stored, and no row. Ingesting the same bytes in the same way again changes
    nothing.
    """
    reading = reading or Reading()
    origin = origin or Origin()
    opened = open_inputs(data, reading, revision=origin.revision)
    return load(opened, reading, origin, dataset=dataset, author=author, warehouse=warehouse)[0]


def load(
    opened: Opened,
    reading: Reading,
    origin: Origin,
    *,
    dataset: str | None = None,
    author: str | None = None,
    warehouse: Path | None = None,
) -> tuple[LoadReport, UnitStream]:
    """Store what was opened and commit it as a version; the stream says what was read."""
    dataset = dataset or slug(opened.name)
    origin = _of_files(opened, origin)
    names = list(dict.fromkeys(shard.plan.name for shard in opened.shards))
    info = SourceInfo(
        name=_own_name(opened.sample) or dataset,
        path=opened.path,
        format=reading.label("+".join(names)),
        file_sha256=opened.sha256,
        scales=scales_of(shard.plan for shard in opened.shards),
        **{name: getattr(origin, name) for name in Origin.__dataclass_fields__},
    )
    stream = UnitStream(opened.shards, path=opened.path, rater=reading.rater)
    unusable: list[NothingUsableError] = []
    with open_warehouse(warehouse) as connection, display.progress(f"ingest {dataset}", opened.size) as advance:
        report = find_load(connection, info, dataset) or load_units(
            connection,
            info,
            _watched(_usable(stream.batches(), unusable), opened.position, advance),
            rejects=stream.rejects,
            n_lines=lambda: stream.n_lines,
            dataset=dataset,
            author=author or user_name(),
        )
    if unusable:
        raise DataError(f"{unusable[0]}; no row was stored; each with its reason: rmkit ingest --rejects {dataset}")
    for path in opened.files:
        forget(path)
    return report, stream


def _usable(batches: Iterator[pa.RecordBatch], unusable: list[NothingUsableError]) -> Iterator[pa.RecordBatch]:
    """The batches; that there is none is put aside, so that the reasons are stored before it is said."""
    try:
        yield from batches
    except NothingUsableError as error:
        unusable.append(error)


def _of_files(opened: Opened, origin: Origin) -> Origin:
    """What is known of the origin, with what the hub, the files' names and their sidecars say."""
    if opened.url and not origin.url:
        origin = replace(origin, url=opened.url)
    if opened.license and origin.license == "unknown":
        origin = replace(origin, license=opened.license)
    named = any(path.name.startswith("bench_") for path in opened.files)
    if named or any(shard.plan.is_benchmark for shard in opened.shards):
        origin = replace(origin, is_benchmark=True)
    for path in opened.files[:1]:
        origin = _with_sidecar(path, origin)
    return origin


def _with_sidecar(path: Path, origin: Origin) -> Origin:
    """The sidecar's statements, under what was given by option."""
    sidecar = path.with_name(path.name + SIDECAR)
    if not sidecar.exists():
        return origin
    noted = config.build(Origin, config.read_toml(sidecar), where=str(sidecar))
    plain = Origin()
    inputs = {name: v for name in Origin.__dataclass_fields__ if (v := getattr(origin, name)) != getattr(plain, name)}
    return replace(noted, **inputs)


def _own_name(sample: Sequence[Mapping[str, Any]]) -> str | None:
    """What the rows call their source, where all of a sample agree."""
    names = {row.get("source") for row in sample}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) and name and sample and "meta" in sample[0] else None


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
    stem = re.sub(
        r"(\.(jsonl|ndjson|json|csv|tsv|tab|txt|parquet|arrow|feather|xlsx|gz|zst|zstd|bz2|xz|lz4|zip|tar|tgz))+$",
        "",
        name.lower(),
    )
    return re.sub(r"[^a-z0-9.]+", "-", stem).strip("-.") or "data"


def main(argv: list[str]) -> int:
    """Entry point of `rmkit ingest`."""
    options = _parser().parse_args(_with_signed_values(argv))
    if options.forms:
        return reports.show_forms(as_json=options.json)
    if options.rejects:
        return reports.show_rejects(options.rejects, as_json=options.json)
    if not options.file:
        raise UsageError("rmkit ingest takes at least one file, folder, - or hf:// address, or --rejects DATASET")
    reading, origin = _reading(options), _origin(options)
    targets = options.file[0] if len(options.file) == 1 else list(options.file)
    opened = open_inputs(targets, reading, revision=origin.revision)
    table = reports.explanation(opened)
    if options.dry_run:
        tried = preview.dry_run(opened, table, rater=reading.rater)
        display.emit(tried, as_json=options.json, text=preview.dry_text(tried))
        return 0
    if not options.json:
        display.emit({}, as_json=False, text=reports.table_text(table))
    if not options.yes and (doubts := preview.doubts(opened, rater=reading.rater)):
        raise DataError(f"{opened.path}: {'; '.join(doubts)}; look with --dry-run, --yes stores it all the same")
    result, stream = load(opened, reading, origin, dataset=options.name)
    facts = reports.summary(result, opened, stream, table)
    if options.save_map:
        saved.save(options.save_map, opened.sample, opened.shards[0].plan, reading)
        facts["saved_map"] = str(options.save_map)
    text = reports.as_text(facts) + "\n" + reports.next_commands(facts)
    display.emit({"files": [facts]}, as_json=options.json, text=text)
    return 0


def _with_signed_values(argv: list[str]) -> list[str]:
    """The arguments with `--values -3..-1=a` in one piece: on its own, what begins with a minus reads as an option."""
    result: list[str] = []
    for one in argv:
        if result and result[-1] == "--values" and one.startswith("-") and "=" in one:
            result[-1] = f"--values={one}"
        else:
            result.append(one)
    return result


def _reading(options: Any) -> Reading:
    settings = {
        "format": options.format,
        "roles": parse_map(options.map) if options.map else {},
        "values": options.values,
        "wide": _names(options.wide),
        "items": tuple(map(str, options.items or ())),
        "on": options.on,
        "rater_kind": options.rater_kind,
        "split_text": options.split_text,
        "encoding": options.encoding,
        "delimiter": options.delimiter,
        "header_rows": options.header_rows,
        "records": options.records,
        "sheet": options.sheet,
        "member": options.member,
        "union": options.union,
        "keep_going": options.keep_going,
        "limit": options.limit,
        "max_line_bytes": int(options.max_line_mb * (1 << 20)),
    }
    if options.rater and ":" not in options.rater:
        settings["roles"] = {**settings["roles"], "rater": options.rater}  # a column's name
    else:
        settings["rater"] = options.rater
    reading = Reading(**settings)
    return saved.with_map(options.use_map, reading) if options.use_map else reading


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _origin(options: Any) -> Origin:
    return Origin(
        url=options.url, revision=options.revision, license=options.license or "unknown", is_benchmark=options.benchmark
    )


def _parser() -> arguments.Parser:
    parser = arguments.parser(
        "ingest",
        "Bring preference data into the warehouse: every row is stored or rejected with a reason. What was "
        "read is printed "
        "as a table: column, the role it plays, why, a sample.",
        examples=[
            "ingest pairs.jsonl.gz --license MIT --url https://example.org/pairs",
            "ingest votes.csv --dry-run",
            "ingest votes.csv --map prompt=question,response_a=left,response_b=right,preference=winner",
            "ingest scores.csv --values '1=a,2=b,0=tie'",
            "ingest sheet.xlsx --wide 'annotator*' --rater-kind human",
            "ingest answers.csv --items texts.csv --on instance_id",
            "ingest exports/ 'more/*.jsonl' --name votes --keep-going",
            "ingest hf://org/name:train --license Apache-2.0",
            "ingest 's3://bucket/dumps/*.jsonl.zst' --name votes",
            "ingest --rejects pairs",
        ],
    )
    parser.add_argument(
        "file",
        nargs="*",
        help="files, folders, globs, archives (zip, tar), - for stdin: shards of one version; JSON, CSV, TSV, "
        "Parquet, Arrow, "
        ".xlsx, also .gz .zst .bz2 .xz; here or at s3://BUCKET/KEY; or hf://ORG/NAME[/CONFIG][:SPLIT]",
    )
    parser.add_argument("--name", metavar="DATASET", help="the dataset to make a version of (default: the file's name)")
    parser.add_argument(
        "--dry-run", action="store_true", help="read 1,000 rows, print what they were taken for, store nothing"
    )
    parser.add_argument("--format", metavar="F", help="read as this form instead of detecting it; --forms lists them")
    parser.add_argument(
        "--map", metavar="ROLE=PATH,...", help="where roles lie, e.g. prompt=question,chosen=better.text"
    )
    parser.add_argument(
        "--values", metavar="V=L,...", help="what labels mean: 1=a,2=b,0=tie; -3..-1=a; soft=1..2; Good=2"
    )
    parser.add_argument(
        "--wide", metavar="COLUMNS", help="columns that hold one rater's label each; patterns like 'ann*'"
    )
    parser.add_argument(
        "--items",
        type=Path,
        metavar="FILE",
        action="append",
        help="texts of what was judged, joined by --on; repeatable",
    )
    parser.add_argument("--on", metavar="COLUMNS", help="columns that join the rows with --items")
    parser.add_argument(
        "--rater", metavar="NAME:KIND", help="who gave labels whose rows do not say; or a column's name"
    )
    parser.add_argument(
        "--rater-kind", metavar="KIND", help="human, llm, ... of the raters; or the column that says it"
    )
    parser.add_argument(
        "--split-text", metavar="MARK", help="what stands between prompt and reply in one text, e.g. '\\n---\\n'"
    )
    parser.add_argument("--encoding", metavar="E", help="of text, where it is not UTF-8: cp1252, utf-16, gb18030 ...")
    parser.add_argument("--delimiter", metavar="SIGN", help="between columns of text (default: told from the rows)")
    parser.add_argument("--header-rows", type=int, metavar="N", help="first rows that together name the columns")
    parser.add_argument("--records", metavar="PATH", help="where the rows lie in a JSON document")
    parser.add_argument("--sheet", metavar="NAME", help="the sheet of a workbook")
    parser.add_argument("--member", metavar="NAME", help="the file of an archive")
    parser.add_argument("--union", action="store_true", help="put files of unlike forms into one version")
    parser.add_argument(
        "--keep-going", action="store_true", help="leave out files that cannot be read, and store the others"
    )
    parser.add_argument(
        "--save-map",
        type=arguments.output_path,
        metavar="TOML",
        help="write down how the file was read, for the next delivery",
    )
    parser.add_argument(
        "--use-map", type=Path, metavar="TOML", help="read as a saved map says; refuses a file that drifted from it"
    )
    parser.add_argument("--yes", action="store_true", help="store in spite of the doubts that are printed")
    parser.add_argument("--license", metavar="SPDX", help="license of the data (default: the sidecar's, else unknown)")
    parser.add_argument("--url", help="where the data is published")
    parser.add_argument("--revision", help="its revision there")
    parser.add_argument("--benchmark", action="store_true", help="never train on it; check contamination against it")
    parser.add_limit(help="read only the first N rows of each file")
    parser.add_argument("--max-line-mb", type=float, default=32, metavar="MB", help="reject longer lines")
    parser.add_argument("--forms", action="store_true", help="list the forms that are known")
    parser.add_argument("--rejects", metavar="DATASET", help="list the rejected rows of a dataset instead")
    return parser
