"""Rows that are in memory already: frames, Arrow tables, Hugging Face datasets, iterables of mappings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_pipelines.sources.reading.hub import dataset_rows
from data_pipelines.sources.reading.streams import Item, Parsed, Reject, excerpt
from data_pipelines.sources.reading.tables import batch_rows
from rmkit.errors import DataError


def frame_rows(data: Any) -> Iterator[Item]:
    """The rows of a polars or pandas frame, an Arrow table, a Hugging Face Dataset or DatasetDict, or an iterable.

    A missing cell is None (pandas' NaN too). Raises DataError for anything else.
    """
    module = type(data).__module__.partition(".")[0]
    match module, type(data).__name__:
        case "polars", "DataFrame":
            yield from batch_rows(data.to_arrow(), 0)
        case "polars", "LazyFrame":
            yield from batch_rows(data.collect().to_arrow(), 0)
        case "pandas", "DataFrame":
            import pyarrow as pa

            yield from batch_rows(pa.Table.from_pandas(data, preserve_index=False), 0)
        case "pyarrow", "Table" | "RecordBatch":
            yield from batch_rows(data, 0)
        case "datasets", "Dataset":
            yield from dataset_rows([(None, data)])  # no split: all that `split="train"` loads has that one
        case "datasets", "DatasetDict":
            yield from dataset_rows(list(data.items()))
        case _:
            if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
                raise DataError(
                    f"cannot read rows from {type(data).__name__}; expected a name, an export folder, a polars or "
                    "pandas frame, an Arrow table, a Hugging Face dataset, or an iterable of mappings"
                )
            for line, row in enumerate(data, 1):
                if isinstance(row, Mapping):
                    yield Parsed(line, dict(row))
                else:
                    yield Reject(line, f"not a mapping but {type(row).__name__}", excerpt(repr(row)))
