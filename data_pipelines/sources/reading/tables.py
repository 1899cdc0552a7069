"""CSV and Parquet files as rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from data_pipelines.sources.reading.streams import (
    Item,
    Parsed,
    Reject,
    Stream,
    bounded_lines,
    excerpt,
)
from rmkit.data.parquet import MAX_ROW_BYTES, OVER_LIMIT, bounded_tables
from rmkit.errors import DataError


def csv_rows(stream: Stream, path: Path, max_bytes: int, *, delimiter: str) -> Iterator[Item]:
    """Rows of a CSV file with a header; `line` is where the record begins. Raises DataError for a bad header."""
    csv.field_size_limit(max_bytes)
    faults: list[Reject] = []
    reader = csv.reader(_text_lines(stream, max_bytes, faults), delimiter=delimiter, strict=True)
    header = _header(reader, path)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            torn = "unexpected end" in str(error)
            yield Reject(line, "torn: a quoted field does not end" if torn else f"not CSV: {error}", "")
            continue
        yield from _pop(faults)
        if cells:
            yield _row(line, header, cells, delimiter)
    yield from _pop(faults)


def _text_lines(stream: Stream, max_bytes: int, faults: list[Reject]) -> Iterator[str]:
    """Lines as text; a line that cannot be given to the CSV parser leaves a Reject in `faults` and an empty line."""
    for number, raw, fault in bounded_lines(stream, max_bytes):
        if fault:
            faults.append(Reject(number, fault, excerpt(raw)))
            yield "\n"
        else:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _pop(faults: list[Reject]) -> Iterator[Reject]:
    while faults:
        yield faults.pop(0)


def _header(reader: Iterator[list[str]], path: Path) -> list[str]:
    try:
        header = [name.strip() for name in next(reader)]
    except (StopIteration, csv.Error):
        header = []
    if not any(header) or len(set(header)) < len(header) or not _encodable("".join(header)):
        raise DataError(
            f"{path}: the first line of a CSV file must name its columns, each once, in UTF-8; got {header!r}"
        )
    return header


def _row(line: int, header: list[str], cells: list[str], delimiter: str) -> Item:
    text = delimiter.join(cells)
    if not _encodable(text):
        return Reject(line, "invalid UTF-8", excerpt(text))
    if len(cells) != len(header):
        return Reject(line, "the number of fields differs from the header's", excerpt(text))
    return Parsed(line, dict(zip(header, cells, strict=True)))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parquet_tables(source: BinaryIO, path: Path, max_bytes: int = MAX_ROW_BYTES) -> Iterator[Any]:
    """Arrow tables of some megabytes each, and a Reject for every row over the limit, in order; `line` is the row.

    Raises DataError where the file is damaged.
    """
    line = 0
    for table in bounded_tables(source, name=path, max_row_bytes=max_bytes):
        yield too_large(line + 1, max_bytes) if table is None else table
        line += 1 if table is None else len(table)


def too_large(line: int, max_bytes: int = MAX_ROW_BYTES) -> Reject:
    return Reject(line, OVER_LIMIT.format(max_bytes / (1 << 20)), "")


def table_rows(tables: Iterable[Any]) -> Iterator[Item]:
    """The rows of such tables one by one."""
    line = 0
    for table in tables:
        if isinstance(table, Reject):
            yield table
            line += 1
        else:
            yield from batch_rows(table, line)
            line += len(table)


def parquet_rows(source: BinaryIO, path: Path, max_bytes: int = MAX_ROW_BYTES) -> Iterator[Item]:
    """Rows of a Parquet file; `line` is the row. Raises DataError where the file is damaged."""
    return table_rows(parquet_tables(source, path, max_bytes))


def batch_rows(batch: Any, before: int) -> Iterator[Item]:
    """Rows of an Arrow table; Parquet readers do not check UTF-8, so a table with a bad text is taken row by row."""
    try:
        values = batch.to_pylist()
    except UnicodeDecodeError:
        for at in range(len(batch)):
            try:
                (value,) = batch.slice(at, 1).to_pylist()
                yield Parsed(before + at + 1, _json_ready(value))
            except UnicodeDecodeError:
                yield Reject(before + at + 1, "invalid UTF-8", "")
    else:
        for at, value in enumerate(values):
            yield Parsed(before + at + 1, _json_ready(value))


def _json_ready(value: dict[str, Any]) -> dict[str, Any]:
    """Arrow maps come as lists of tuples: lists of lists, as JSON has them."""
    return {name: [list(pair) for pair in item] if _is_map(item) else item for name, item in value.items()}


def _is_map(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], tuple)
