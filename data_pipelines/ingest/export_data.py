"""Data that is in memory, as an export folder that lasts as long as this process; nothing goes to $RMKIT_HOME.

A frame or an iterable is read by the same sources as a file that `rmkit ingest` reads, then split by prompt family as
the step `split` does (rows that bring both a train and a validation split keep theirs). Rows that are examples already,
those of a `Dataset` or of a frame made of one, keep their labels, and their splits on the same condition.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.ingest.command import ingest, rows_digest
from data_pipelines.sources.reading.frames import frame_rows
from data_pipelines.sources.reading.streams import Item, Parsed
from data_pipelines.steps import Context, as_frame, split
from rmkit.data.example import EXAMPLE_SCHEMA, MANIFEST
from rmkit.errors import DataError
from rmkit.ids import canonical_json
from warehouse.out.manifest import PARQUET
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.dataset import Dataset
from warehouse.versions.versions import resolve

log = logging.getLogger(__name__)


def export_data(data: Any) -> Path:
    """The export folder of a Dataset, a frame, a Hugging Face dataset or an iterable of rows (see `frame_rows`).

    The same rows give the same folder. Raises DataError where none of the rows is usable.
    """
    if isinstance(data, Dataset):
        items: list[Item] = [Parsed(line, row) for line, row in enumerate(data.rows.to_pylist(), 1)]
    else:
        items = list(frame_rows(data))
    digest = rows_digest(items)
    folder = Path(_scratch().name) / f"rows-{digest[:12]}"
    if not (folder / MANIFEST).is_file():
        folder.mkdir(exist_ok=True)
        ref = data.ref if isinstance(data, Dataset) else f"rows-{digest[:12]}"
        _write(folder, _with_splits(_examples(items, folder)), ref=ref, digest=digest)
    return folder


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="rmkit-data-")


def _examples(items: list[Item], folder: Path) -> pl.DataFrame:
    """A frame in EXAMPLE_SCHEMA."""
    if items and all(isinstance(item, Parsed) and set(EXAMPLE_SCHEMA.names) <= set(item.value) for item in items):
        try:
            rows = [_example(item.value) for item in items if isinstance(item, Parsed)]
            return pl.DataFrame(pl.from_arrow(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA)))
        except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"these rows have an example's columns but not its types: {error}") from error
    path = folder / "warehouse.duckdb"
    report = ingest([item.value for item in items if isinstance(item, Parsed)], dataset="rows", warehouse=path)
    rejected = report.n_rejected + sum(not isinstance(item, Parsed) for item in items)
    if rejected:
        log.warning("%d of %d rows are not usable and left out; rmkit.ingest says why", rejected, len(items))
    with open_warehouse(path, read_only=True) as connection:
        frame = as_frame(checkout(connection, resolve(connection, "rows"), votes=True))
    path.unlink()
    return frame.select(EXAMPLE_SCHEMA.names)


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its conversations as canonical JSON again."""
    responses = row["responses"]
    return {
        **{name: row[name] for name in EXAMPLE_SCHEMA.names},
        "prompt": _canonical(row["prompt"]),
        "responses": None if responses is None else [_canonical(each) for each in responses],
    }


def _canonical(messages: Any) -> str | None:
    if messages is None or isinstance(messages, str):
        return messages
    plain = [{name: value for name, value in message.items() if value is not None} for message in messages]
    for message in plain:
        if isinstance(message.get("tool_calls"), str):
            message["tool_calls"] = json.loads(message["tool_calls"])
    return canonical_json(plain)


def _with_splits(frame: pl.DataFrame) -> pl.DataFrame:
    names = {split.SYNONYMS.get(name, name) for name in frame["split"].unique() if name}
    if {"train", "validation"} <= names:
        return frame
    return split.step(frame, split.Config(), Context()).kept


def _write(folder: Path, frame: pl.DataFrame, *, ref: str, digest: str) -> None:
    """One file and the manifest that readers of export folders look at."""
    file = "rows-00000.parquet"
    pq.write_table(frame.to_arrow().cast(EXAMPLE_SCHEMA), folder / file, **PARQUET)
    manifest = {"files": {file: {}}, "ref": ref, "digest": digest, "benchmark_rows": 0, "n_rows": len(frame)}
    (folder / MANIFEST).write_text(json.dumps(manifest) + "\n")
