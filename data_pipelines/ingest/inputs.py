"""What `rmkit ingest` is given, as shards: files, folders and globs, here or in object storage, members of archives,
stdin, hub datasets, rows in memory.

All targets of one load make one version. Every shard is recognized from a sample of its own; shards of unlike forms are
refused unless `union` is set, a broken one unless `keep_going` is.
"""

from __future__ import annotations

import atexit
import glob
import itertools
import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipelines.ingest import dataset_info
from data_pipelines.ingest.items import Items
from data_pipelines.ingest.reading import Reading
from data_pipelines.ingest.rows import Shard
from data_pipelines.ingest.saved import check_drift
from data_pipelines.sources.gathered import gather_of
from data_pipelines.sources.reading.containers import Member, files_in, members
from data_pipelines.sources.reading.frames import frame_rows
from data_pipelines.sources.reading.hub import open_hub
from data_pipelines.sources.reading.lines import Layout, open_member
from data_pipelines.sources.reading.streams import CUT_OFF, Item, Parsed, Reject
from data_pipelines.sources.recognize import Plan, recognize, with_form
from data_pipelines.sources.unit_builder import split_name
from rmkit.errors import DataError, UsageError
from rmkit.ids import digest, file_sha256
from rmkit.storage.address import is_address, is_web, redacted
from rmkit.storage.fetch import fetch, fetch_matching
from rmkit.storage.places import at_addresses

log = logging.getLogger(__name__)
SAMPLE_ROWS = 1_000
SAMPLE_CELLS = 2_000_000
MAX_COLUMNS = 10_000
SIDECAR = ".source.toml"
STORED_NOTHING = "; nothing was stored"
NOBODY = ("all", "unknown")  # names of files of a form with a file a rater that are nobody's
IN_MEMORY = "rows in memory"  # what stands for their path
_SPLIT = re.compile(r"(^|[-_./ ])(train|validation|valid|val|dev|test)([-_.]|$)")


@dataclass(frozen=True)
class Opened:
    """Shards that are recognized and ready to be read once. `sample` are the first rows of the first one."""

    name: str
    path: str
    shards: Sequence[Shard]
    sample: Sequence[Mapping[str, Any]]
    sha256: str
    size: int | None
    position: Callable[[], int] | None
    notes: list[str] = field(default_factory=list)
    files: Sequence[Path] = ()
    url: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class _File:
    """A file of rows before it is opened."""

    name: str
    path: Path
    member: Member


def open_inputs(data: Any, reading: Reading, *, revision: str | None = None) -> Opened:
    """Raises DataError where something cannot be read or recognized, UsageError for options that make no sense."""
    items_layout = Layout(encoding=reading.encoding, max_line_bytes=reading.max_line_bytes)
    items = Items.load(reading.items, reading.on, items_layout) if reading.items else None
    if not isinstance(data, str | Path) and not _are_targets(data):
        rows = list(frame_rows(data))
        shard, sample = _shard(IN_MEMORY, iter(rows), None, reading, items)
        return Opened("rows", IN_MEMORY, [shard], sample, rows_digest(rows), None, None)
    targets = [str(data)] if isinstance(data, str | Path) else [str(one) for one in data]
    if len(targets) == 1 and targets[0].startswith("hf://"):
        hub = open_hub(targets[0], revision=revision)
        shard, sample = _shard(targets[0], hub.items, None, reading, items)
        return Opened(hub.name, targets[0], [shard], sample, hub.sha256, None, None, url=hub.url, license=hub.license)
    return _open_files(targets, reading, items)


def _are_targets(data: Any) -> bool:
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(one, str | Path) for one in data)


def _open_files(targets: Sequence[str], reading: Reading, items: Items | None) -> Opened:
    notes: list[str] = []
    places = [place for target in targets for place in _places(target)]
    paths = [path for place in places for path in _paths(place, notes)]
    targets = [redacted(target) for target in targets]
    files = [one for path in paths for one in _files(path, reading, len(paths) > 1, notes)]
    if not files:
        raise DataError(f"{', '.join(targets)}: no file that can be read; {'; '.join(notes)}")
    shards: list[tuple[Shard, list[str]]] = []
    sample: list[Any] = []
    positions: list[Any] = []
    for file in files:
        try:
            opened = open_member(file.member, file.path, reading.layout)
            rows = _watched(opened.items, file.name, several=len(files) > 1, keep_going=reading.keep_going)
            rows, columnar = dataset_info.renamed(file.path, rows), opened.tables
            shard, head = _shard(file.name, rows, columnar, reading, items, split=len(files) > 1, notes=opened.notes)
        except DataError as error:
            if len(files) == 1 or isinstance(error, UsageError):
                raise
            if not reading.keep_going:
                reason = str(error).partition(STORED_NOTHING)[0]
                raise DataError(f"{reason}{STORED_NOTHING} (--keep-going takes the other {len(files) - 1})") from error
            notes.append(f"left out: {str(error).partition(STORED_NOTHING)[0]}")
            continue
        notes.extend(opened.notes) if len(files) == 1 else notes.extend(f"{file.name}: {n}" for n in opened.notes)
        shards.append((shard, opened.notes))
        sample = sample or head
        positions.append(opened.position)
    if not shards:
        raise DataError(f"{', '.join(targets)}: no file could be read; {'; '.join(notes[:5])}")
    _check_alike([shard for shard, _ in shards], reading)
    distinct = list(dict.fromkeys(file.path for file in files))
    sha256 = file_sha256(distinct[0]) if len(distinct) == 1 else digest([file_sha256(path) for path in distinct])
    if items is not None:
        sha256 = digest([sha256, items.sha256])
    name = distinct[0].name if len(distinct) == 1 else _common_name(places, distinct)
    size = sum(path.stat().st_size for path in distinct)
    return Opened(
        name,
        targets[0] if len(targets) == 1 else ", ".join(targets),
        [shard for shard, _ in shards],
        sample,
        sha256,
        size,
        positions[0] if len(positions) == 1 else None,
        notes,
        distinct,
    )


def _places(target: str) -> list[str]:
    """The paths of this machine that a target means; what lies at an address is fetched with the notes beside it."""
    if target.startswith("hf://"):
        raise UsageError(f"{target}: a hub dataset is ingested on its own, not together with other targets")
    if not is_address(target):
        return [target]
    along = [f"{{name}}{SIDECAR}", dataset_info.NAME]
    if glob.has_magic(target) and not is_web(target):
        return [str(path) for path in fetch_matching(target, along=along)]
    return [str(fetch(target, along=along))]


def _paths(target: str, notes: list[str]) -> list[Path]:
    """The files that a path means."""
    if target == "-":
        return [_stdin()]
    path = Path(target)
    if path.is_dir():
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            raise DataError(f"{path} was saved by datasets; name it hf://{path}")
        files, skipped = files_in(path)
        notes += skipped
        if not files:
            why = f" ({'; '.join(skipped[:5])})" if skipped else ""
            raise DataError(f"{path} is a folder without files of rows{why}")
        return files
    if not path.exists() and glob.has_magic(target):
        matches = sorted(Path(name) for name in glob.glob(target, recursive=True))
        if not matches:
            raise DataError(f"no file matches {target}")
        return [one for one in matches if one.is_file() and not one.name.endswith(SIDECAR)]
    return [path]


def _stdin() -> Path:
    """What comes in, in a file that lasts as long as this process: it is read twice."""
    folder = tempfile.mkdtemp(prefix="rmkit-stdin-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "stdin"
    with path.open("wb") as file:
        while part := sys.stdin.buffer.read(1 << 20):
            file.write(part)
    if not path.stat().st_size:
        raise DataError("-: nothing came in by stdin")
    return path


def _files(path: Path, reading: Reading, several: bool, notes: list[str]) -> list[_File]:
    try:
        inner = members(path, member=reading.member)
    except DataError as error:
        if not several:
            raise
        if not reading.keep_going:
            raise DataError(f"{error}; nothing was stored (--keep-going takes the others)") from error
        notes.append(f"left out: {error}")
        return []
    if len(inner) == 1 and not several:
        return [_File(inner[0].name if inner[0].name != path.name else path.name, path, inner[0])]
    name = at_addresses(str(path))
    return [_File(name if len(inner) == 1 else f"{name}: {one.name}", path, one) for one in inner]


def _shard(
    name: str,
    items: Iterator[Item],
    tables: Any,
    reading: Reading,
    joined: Items | None,
    *,
    split: bool = False,
    notes: Sequence[str] = (),
) -> tuple[Shard, list[Mapping[str, Any]]]:
    """A shard and the sample of rows from which it was recognized."""
    items = itertools.islice(items, reading.limit)
    items, sample, head = _sampled(items)
    if not sample:
        hint = "".join(f"; {note}" for note in notes if "--encoding" in note)
        raise DataError(
            f"{name}: no row of the first {len(head)} can be read{_reasons(head)}{hint}; nothing was stored"
        )
    columns = {column for row in sample for column in row}
    if len(columns) > MAX_COLUMNS:
        raise DataError(
            f"{name} has {len(columns):,} columns, over the limit of {MAX_COLUMNS:,}; is the separator right?"
        )
    gather = None if reading.format is not None or reading.roles else gather_of(sample)
    hints = reading.hints
    if gather is not None:
        items, tables = gather.items(items, hints), None
        hints = replace(hints, wide=())
    if joined is not None and (gather is None or gather.items_after):
        items, tables = joined.joined(items, () if gather else reading.wide, is_gathered=gather is not None), None
        hints = replace(hints, wide=())
    if gather is not None or joined is not None:
        items, sample, head = _sampled(items)
        if not sample:
            raise DataError(f"{name}: nothing to judge in it{_reasons(head)}; nothing was stored")
    if joined is not None:
        hints = replace(hints, item_columns=joined.columns)
    plan = recognize(sample, path=name, hints=hints)
    if reading.saved_map is not None:
        check_drift(reading.saved_map, sample, plan, name)
    if split and plan.form is not None and plan.form.rater_of_file and reading.rater is None:
        rater = PurePosixPath(name.rpartition(": ")[2]).name.partition(".")[0]
        if rater not in NOBODY:
            plan = with_form(plan, replace(plan.form, rater=rater))
    if split and (value := _SPLIT.search(name.rsplit("/", 1)[-1].lower())):
        plan = _in_split(plan, split_name(value[2]))
    if reading.limit is not None:
        tables = None
    return Shard(name, plan, items, tables), sample


def _sampled(items: Iterator[Item]) -> tuple[Iterator[Item], list[Mapping[str, Any]], list[Item]]:
    """(all items again, the rows of a sample of them, the items that were read for it)."""
    head = _head(items)
    return itertools.chain(head, items), [item.value for item in head if isinstance(item, Parsed)], head


def _in_split(plan: Plan, split: str | None) -> Plan:
    """The plan under which rows without a split of their own have that of the file's name."""
    units = plan.units

    def named(row: Mapping[str, Any]) -> Iterator[Any]:
        for unit in units(row):
            yield unit if unit["split"] is not None else {**unit, "split": split}

    return replace(plan, units=named, fast=None)


def _head(items: Iterator[Item]) -> list[Item]:
    """Items until SAMPLE_ROWS of them could be parsed, or until it is clear that few can."""
    head: list[Item] = []
    parsed = cells = 0
    for item in itertools.islice(items, 5 * SAMPLE_ROWS):
        head.append(item)
        if isinstance(item, Parsed):
            parsed += 1
            cells += len(item.value)
        if parsed >= SAMPLE_ROWS or cells >= SAMPLE_CELLS:
            break
    return head


def _watched(items: Iterator[Item], name: str, *, several: bool, keep_going: bool) -> Iterator[Item]:
    """The items of one of several files; a damaged one ends the load unless `keep_going` is set."""
    for item in items:
        if several and not keep_going and isinstance(item, Reject) and item.reason == CUT_OFF:
            raise DataError(f"{name}: {CUT_OFF}; nothing was stored (--keep-going takes what can be read)")
        yield item


def _check_alike(shards: Sequence[Shard], reading: Reading) -> None:
    """Raises DataError where shards have unlike forms, naming each."""
    if reading.union or len({shard.plan.name for shard in shards}) == 1:
        return
    by_form: dict[str, list[str]] = {}
    for shard in shards:
        by_form.setdefault(shard.plan.name, []).append(shard.name)
    listing = "; ".join(f"{form}: {', '.join(names[:5])}{' ...' * (len(names) > 5)}" for form, names in by_form.items())
    raise DataError(
        f"these files are in {len(by_form)} forms ({listing}); nothing was stored: ingest each form on its "
        f"own, name one "
        "with --member, or say --union to put them into one version"
    )


def _common_name(places: Sequence[str], paths: Sequence[Path]) -> str:
    """A name for several files: their folder's, or what their names begin with alike."""
    if len(places) == 1 and Path(places[0]).is_dir():
        return Path(places[0]).resolve().name
    names = [path.name for path in paths]
    prefix = names[0]
    for name in names[1:]:
        while not name.startswith(prefix):
            prefix = prefix[:-1]
    prefix = re.sub(r"[-_.]?(\d+|of|part|shard)?[-_.]*$", "", prefix)
    return prefix or paths[0].resolve().parent.name


def _reasons(items: Sequence[Item]) -> str:
    reasons = sorted({item.reason for item in items if isinstance(item, Reject)})
    return f" ({'; '.join(reasons[:3])})" if reasons else ""


def rows_digest(rows: Sequence[Item]) -> str:
    """What stands for a file's SHA-256 where rows are in memory."""
    return digest([json.dumps(row, default=str, sort_keys=True) for row in rows])
