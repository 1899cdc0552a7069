"""CSV and Parquet files as rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from data_pipelines.sources.reading import sheets
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

_Read: TypeAlias = "tuple[int, list[str] | csv.Error]"


def csv_rows(
    stream: Stream,
    path: Path,
    max_bytes: int,
    *,
    delimiter: str,
    header_rows: int | None = None,
    notes: list[str] | None = None,
) -> Iterator[Item]:
    """Rows of a table in text with a header; `line` is where the record begins. Raises DataError for a bad header.

    Of several header rows the names are joined. A row that lacks cells at its end is padded with empty ones, which is
    noted; one with more cells than the header is rejected.
    """
    csv.field_size_limit(max_bytes)
    faults: list[Reject] = []
    reader = csv.reader(_text_lines(stream, max_bytes, faults), delimiter=delimiter, strict=True)
    header, waiting = _header(reader, path, header_rows)
    padded = 0
    while True:
        line = reader.line_num + 1
        cells: list[str] | csv.Error
        if waiting:
            line, cells = waiting.pop(0)
        else:
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                cells = error
        if isinstance(cells, csv.Error):
            torn = "unexpected end" in str(cells)
            yield Reject(line, "torn: a quoted field does not end" if torn else f"not CSV: {cells}", "")
            continue
        yield from _pop(faults, line)
        if cells:
            item = _row(line, header, cells, delimiter)
            padded += isinstance(item, Parsed) and len(cells) < len(header)
            yield item
    yield from _pop(faults)
    if padded and notes is not None:
        notes.append(f"{padded} short rows padded")


def _text_lines(stream: Stream, max_bytes: int, faults: list[Reject]) -> Iterator[str]:
    """Lines as text; a line that cannot be given to the CSV parser leaves a Reject in `faults` and an empty line."""
    for number, raw, fault in bounded_lines(stream, max_bytes):
        if fault:
            faults.append(Reject(number, fault, excerpt(raw)))
            yield "\n"
        else:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _pop(faults: list[Reject], before: int | None = None) -> Iterator[Reject]:
    while faults and (before is None or faults[0].line < before):
        yield faults.pop(0)


def _header(reader: Any, path: Path, header_rows: int | None) -> tuple[list[str], list[_Read]]:
    """(names, rows read too far). Three header rows of Qualtrics (the third holds ImportId) are told by themselves."""
    rows = _next_rows(reader, 1)
    if rows and isinstance(rows[0][1], csv.Error):
        rows = []
    if (
        rows
        and isinstance(rows[0][1], list)
        and len(rows[0][1]) <= 2
        and rows[0][1][:1]
        and rows[0][1][0].lower().startswith("sep=")
    ):
        rows = _next_rows(reader, 1)
    if header_rows is None:
        rows += _next_rows(reader, 2)
        read = [cells for _, cells in rows if isinstance(cells, list)]
        names, rest = [cell.strip() for cell in read[0]] if read else [], rows[1:]
        if len(read) == 3 and any(cell.startswith('{"ImportId"') for cell in read[2]):
            rest = []
    else:
        rows += _next_rows(reader, header_rows - 1)
        names, rest = joined_header([cells for _, cells in rows if isinstance(cells, list)]), []
    while names and not names[-1] and all(len(cells) < len(names) for _, cells in rest if isinstance(cells, list)):
        names.pop()
    if not any(names) or len(set(names)) < len(names) or not _encodable("".join(names)):
        twice = [name for name in names if names.count(name) > 1]
        several = " (--header-rows N joins several header rows)" if "" in twice else ""
        raise DataError(
            f"{path}: the first line of a CSV file must name its columns, each once, in UTF-8; got "
            f"{names[:40]!r}{several}"
        )
    return names, rest


def _next_rows(reader: Any, n: int) -> list[_Read]:
    rows: list[_Read] = []
    while len(rows) < n:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            rows.append((line, error))
            break
        if cells or line == 1:
            rows.append((line, cells))
    return rows


def joined_header(rows: list[list[str]]) -> list[str]:
    """The names of several header rows joined by ": "; an upper name holds on to the right until the next."""
    width = max((len(row) for row in rows), default=0)
    parts: list[list[str]] = [[] for _ in range(width)]
    for depth, row in enumerate(rows):
        last = ""
        for at in range(width):
            cell = row[at].strip() if at < len(row) and row[at] else ""
            below = any(at < len(other) and other[at] for other in rows[depth + 1 :])
            last = cell or (last if below and depth < len(rows) - 1 else "")
            if last:
                parts[at].append(last)
    return [": ".join(part) for part in parts]


def _row(line: int, header: list[str], cells: list[str], delimiter: str) -> Item:
    text = delimiter.join(cells)
    if not _encodable(text):
        return Reject(line, "invalid UTF-8", excerpt(text))
    if len(cells) > len(header):
        return Reject(line, "more fields than the header names", excerpt(text))
    return Parsed(line, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True)))


def sheet_items(stream: Any, where: str, *, sheet: str | None, header_rows: int) -> Iterator[Item]:
    """Rows of a sheet under its header. Raises DataError for a sheet without one."""
    rows = sheets.sheet_rows(stream, where, sheet=sheet)
    header: list[list[str]] = []
    names: list[str] = []
    for line, cells in rows:
        if len(header) < header_rows:
            header.append(["" if cell is None else str(cell) for cell in cells])
            names = joined_header(header) if header_rows > 1 else [name.strip() for name in header[0]]
            continue
        if "" in names or len(set(names)) < len(names):
            raise DataError(f"{where}: the first row of a sheet must name its columns, each once; got {names[:40]!r}")
        if len(cells) > len(names):
            yield Reject(line, "more cells than the header names", excerpt(str(cells)))
        else:
            yield Parsed(line, dict(zip(names, cells + [None] * (len(names) - len(cells)), strict=True)))


def arrow_rows(source: Any, where: str) -> Iterator[Item]:
    """Rows of an Arrow file or stream, or of Feather. Raises DataError where it is damaged."""
    line = 0
    for batch in arrow_batches(source, where):
        yield from batch_rows(batch, line)
        line += len(batch)


def arrow_batches(source: Any, where: str) -> Iterator[Any]:
    """Its record batches. Raises DataError where it is damaged."""
    import pyarrow as pa
    from pyarrow import feather, ipc

    try:
        start = source.read(6)
        source.seek(0)
        if start[:4] == b"FEA1":
            yield from feather.read_table(source).to_batches()
        elif start[:6] == b"ARROW1":
            file = ipc.open_file(source)
            for at in range(file.num_record_batches):
                yield file.get_batch(at)
        else:
            yield from ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where} is damaged: {str(error).splitlines()[0]}") from error


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
