"""hf://ORG/NAME[/CONFIG][:SPLIT] through the `datasets` package, or hf://FOLDER for a folder on disk.

A folder holds what `save_to_disk` wrote, or Parquet files, which need no further package. Rows of all splits come one
after the other, each with the name of its split; `line` counts them through.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.sources.reading.streams import (
    Item,
    Parsed,
)
from data_pipelines.sources.reading.tables import parquet_rows, too_large
from rmkit.data.parquet import bounded
from rmkit.errors import DataError, MissingExtraError, UsageError

_URL = re.compile(r"hf://(?P<path>[^:]+)(?::(?P<split>[\w.-]+))?")
_SPLIT_OF_FILE = re.compile(r"(train|validation|valid|val|dev|test)[^/]*\.parquet$")


@dataclass(frozen=True)
class HubData:
    """Rows of a hub dataset; `sha256` covers the bytes of its data files."""

    name: str
    items: Iterator[Item]
    sha256: str
    url: str | None
    license: str | None


def open_hub(url: str, *, revision: str | None = None) -> HubData:
    """Raises UsageError for a malformed address, DataError where the dataset cannot be had."""
    match = _URL.fullmatch(url)
    if not match:
        raise UsageError(f"expected hf://ORG/NAME[/CONFIG][:SPLIT] or hf://FOLDER[:SPLIT], got {url!r}")
    path, split = match["path"], match["split"]
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _remote(path, split, revision)
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _saved(folder, split)
    return _parquet_folder(folder, split)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "train") from None
    return datasets


def _remote(path: str, split: str | None, revision: str | None) -> HubData:
    parts = path.split("/")
    if len(parts) not in (2, 3):
        raise UsageError(f"hf://{path} is neither a folder nor ORG/NAME or ORG/NAME/CONFIG")
    name, config = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        result = _datasets().load_dataset(name, config, revision=revision)
    except Exception as error:  # datasets raises what its many back ends raise
        if isinstance(error, MissingExtraError):
            raise
        raise DataError(f"the hub dataset {name} cannot be loaded: {str(error).splitlines()[0]}") from error
    parts_found = _splits(result, split, path)
    files = [Path(file["filename"]) for _, part in parts_found for file in part.cache_files]
    inputs = parts_found[0][1].info.license
    return HubData(
        name=parts[1],
        items=dataset_rows(parts_found),
        sha256=_digest(files),
        url=f"https://huggingface.co/datasets/{name}",
        license=inputs if isinstance(inputs, str) and inputs else None,
    )


def _saved(folder: Path, split: str | None) -> HubData:
    try:
        result = _datasets().load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    parts = _splits(result, split, str(folder))
    files = [Path(file["filename"]) for _, part in parts for file in part.cache_files]
    return HubData(name=folder.name, items=dataset_rows(parts), sha256=_digest(files), url=None, license=None)


def _splits(result: Any, split: str | None, path: str) -> list[tuple[str | None, Any]]:
    """(split, Dataset) pairs of a Dataset or DatasetDict, all or the one asked for."""
    named: dict[str | None, Any] = (
        dict(result) if isinstance(result, dict) else {str(result.split or "") or None: result}
    )
    if split is None:
        return list(named.items())
    if split not in named:
        raise DataError(f"{path} has no split {split!r}; it has: {', '.join(map(str, named))}")
    return [(split, named[split])]


def dataset_rows(parts: list[tuple[str | None, Any]]) -> Iterator[Item]:
    line = 0
    for split, part in parts:
        for batch in part.with_format("arrow").iter(512):
            for table in bounded(batch):
                if table is None:
                    line += 1
                    yield too_large(line)
                    continue
                for value in table.to_pylist():
                    line += 1
                    yield Parsed(line, _with_split(value, split))


def _with_split(value: dict[str, Any], split: str | None) -> dict[str, Any]:
    return value if split is None or "split" in value else value | {"split": split}


def _parquet_folder(folder: Path, split: str | None) -> HubData:
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds neither a dataset saved by datasets nor Parquet files")
    named = [(match[1] if (match := _SPLIT_OF_FILE.search(file.name)) else None, file) for file in files]
    chosen = [(name, file) for name, file in named if split is None or name == split]
    if not chosen:
        raise DataError(f"{folder} has no split {split!r}; it has: {', '.join(sorted({str(n) for n, _ in named}))}")
    items = _parquet_items(chosen)
    return HubData(name=folder.name, items=items, sha256=_digest([f for _, f in chosen]), url=None, license=None)


def _parquet_items(files: list[tuple[str | None, Path]]) -> Iterator[Item]:
    before = line = 0
    for split, path in files:
        with path.open("rb") as source:
            for item in parquet_rows(source, path):
                line = before + item.line
                moved = item._replace(line=line)
                yield moved._replace(value=_with_split(moved.value, split)) if isinstance(moved, Parsed) else moved
        before = line


def _digest(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
