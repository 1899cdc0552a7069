"""Finding a suite's data and checking that it is the data the suite means.

Looked for in this order: the path or dataset version given, the folder `$RMKIT_BENCHMARKS`, the Hugging Face hub (needs
the train extra and a network). In a folder the suite's `files`, NAME.jsonl and the like are read, else the first group
of the benchmark's own files (`originals`) of which one is there.

Counts and, for local files, content digests must be as the suite declares; `allow_changed` turns the refusal into a
note in the report. A declared subset that is not there is reported as missing, never guessed.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation.suites.forms import read_items
from evaluation.suites.items import Item, subset_digests
from evaluation.suites.suite import Suite
from evaluation.suites.units import read_units
from evaluation.suites.version import local_data, names_version, version_items
from rmkit.cli import display
from rmkit.data.parquet import MAX_ROW_BYTES, OVER_LIMIT, bounded_tables
from rmkit.errors import DataError, MissingExtraError, UsageError

_NAMED = 8  # files that are listed by name
SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The items, where they came from, their subsets' digests, what is missing, and how they differ from the suite.

    `version` holds ref, split and digest where the items are a dataset's, `left_out` what of it could not be used."""

    items: tuple[Item, ...]
    source: str
    digests: Mapping[str, str]
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    version: Mapping[str, Any] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


def load_items(suite: Suite, data: str | None = None, *, allow_changed: bool = False) -> Loaded:
    """The suite's items. Raises DataError where they are not found, not of the form, or not what the suite declares."""
    data = data and local_data(data)
    if data and names_version(data):
        read = version_items(suite, data)
        loaded = check(suite, read.items, source=read.source, local=True, allow_changed=allow_changed)
        return replace(loaded, version=read.version, left_out=read.left_out)
    root, files = _files(suite, data)
    left_out: Counter[str] = Counter()
    if files:
        items = _unique([item for file in files for item in _read(suite, read_rows(file), str(file), root, left_out)])
        source = ", ".join(file.name for file in files) if len(files) < _NAMED else f"{len(files)} files of {root.name}"
    else:
        items = _read(suite, _hub_rows(suite), suite.hub, Path(suite.hub), left_out)
        source = f"hub:{suite.hub}"
    loaded = check(suite, items, source=source, local=bool(files), allow_changed=allow_changed)
    return replace(loaded, left_out=dict(left_out))


def _read(suite: Suite, rows: list[Any], where: str, root: Path, left_out: Counter[str]) -> list[Item]:
    if not suite.importers:
        return read_items(suite.form, rows, where=where)
    folder = Path(where).parent
    subset = "all" if folder in (root, root.parent) or not Path(where).is_file() else folder.name
    items, unusable = read_units(suite.form, suite.importers, rows, where=where, subset=subset)
    left_out.update(unusable)
    return items


def _unique(items: Sequence[Item]) -> list[Item]:
    """Items of several files, whose ids are line numbers where the rows have none."""
    counts: Counter[str] = Counter()
    result = []
    for item in items:
        counts[item.id] += 1
        result.append(item if counts[item.id] == 1 else replace(item, id=f"{item.id}#{counts[item.id]}"))
    return result


def check(suite: Suite, items: Sequence[Item], *, source: str, local: bool, allow_changed: bool) -> Loaded:
    """The items with what is missing and changed; DataError where they differ and that was not allowed."""
    digests = subset_digests(items)
    counts = Counter(item.subset for item in items)
    there = {declared.name for name in counts if (declared := suite.subset(name))}
    missing = tuple(s.name for s in suite.subsets if s.name not in there and not s.optional)
    changed = _differences(suite, counts, digests if local else {})
    if changed and not allow_changed:
        raise DataError(
            f"{source} is not the data that suite {suite.name} declares: {'; '.join(changed)}; "
            "pass --allow-changed to score it all the same (the report will say so)"
        )
    if not items:
        raise DataError(f"{source}: no items for suite {suite.name}")
    return Loaded(tuple(items), source, digests, missing, changed)


def _differences(suite: Suite, counts: Mapping[str, int], digests: Mapping[str, str]) -> tuple[str, ...]:
    results = []
    for name, count in sorted(counts.items()):
        declared = suite.subset(name)
        if declared is None:
            if not suite.open:
                results.append(f"unknown subset {name!r} ({count} items)")
        elif declared.items is not None and declared.items != count:
            results.append(f"{name} has {count} items, expected {declared.items}")
        elif declared.digest and name in digests and digests[name] != declared.digest:
            results.append(f"{name} has content {digests[name][:12]}, expected {declared.digest[:12]}")
    return tuple(results)


def _files(suite: Suite, data: str | None) -> tuple[Path, list[Path]]:
    """The folder and the local files in it that are to be read; no file where the hub is to be asked."""
    inputs = data or os.environ.get("RMKIT_BENCHMARKS")
    if not inputs:
        if not suite.hub:
            what = f": {suite.where}" if suite.where else ""
            raise UsageError(f"suite {suite.name} has no data of its own; pass --data FILE or FOLDER{what}")
        return Path(), []
    path = Path(inputs).expanduser()
    if path.is_file():
        return path.parent, [path]
    if not path.is_dir():
        raise DataError(f"no such file or folder: {path}, and no dataset of that name")
    result = _in_folder(suite, path)
    if not result:
        names = [name for group in _groups(suite) for name in group]
        what = f" ({suite.where})" if suite.where else ""
        raise DataError(f"{path} holds no data for suite {suite.name}{what}; expected one of: {', '.join(names)}")
    return path, result


def _groups(suite: Suite) -> list[tuple[str, ...]]:
    return [(*suite.files, *(suite.name + suffix for suffix in SUFFIXES)), *suite.originals]


def _in_folder(suite: Suite, folder: Path) -> list[Path]:
    there = (
        [file for name in names for file in sorted(folder.glob(name)) if file.is_file()] for names in _groups(suite)
    )
    return next((files for files in there if files), [])


def data_at_hand(suite: Suite) -> list[Path]:
    """The suite's files in the folder $RMKIT_BENCHMARKS, where there is one."""
    folder = os.environ.get("RMKIT_BENCHMARKS")
    return _in_folder(suite, Path(folder).expanduser()) if folder else []


def read_rows(path: Path) -> list[Any]:
    """The rows of a JSON or JSON Lines (both also gzipped) or Parquet file: the items of a JSON list, else the JSON
    values that follow each other, whatever the file is called. Raises DataError with the line."""
    if path.suffix == ".parquet":
        rows: list[Any] = []
        for table in bounded_tables(path, name=path):
            if table is None:
                raise DataError(f"{path}, row {len(rows) + 1}: {OVER_LIMIT.format(MAX_ROW_BYTES / (1 << 20))}")
            rows += table.to_pylist()
        return rows
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    values, decoder = [], json.JSONDecoder()
    at = _past_space(text, 0)
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
        except RecursionError as error:
            raise DataError(f"{path}: JSON that is nested too deep to read") from error
        values.append(value)
        at = _past_space(text, at)
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


_SPACE = re.compile(r"\s*")


def _past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _hub_rows(suite: Suite) -> list[Any]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    try:
        with display.only_errors_of("huggingface_hub"):  # its retries would print a line each, twice
            table = datasets.load_dataset(suite.hub, suite.hub_config or None, split=suite.hub_split or None)
    except Exception as error:  # the hub raises OSError, ValueError, HfHubHTTPError, ConnectionError ...
        raise DataError(
            f"{suite.hub} cannot be loaded from the hub ({type(error).__name__}: {str(error).splitlines()[0][:120]}); "
            "pass --data FILE or FOLDER, or set RMKIT_BENCHMARKS"
        ) from error
    if not isinstance(table, Mapping):
        return list(table)
    return [{"subset": name, **row} for name, part in table.items() for row in part]
