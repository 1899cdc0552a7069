"""Reading files row by row without ever trusting them: bounded lines, strict UTF-8, every fault a Reject.

A file yields one Row or one Reject for each row it holds, in order; blank lines are no rows. Nothing here raises for
what a row contains; DataError is kept for a file that cannot be read at all. Memory is bounded by the longest line
allowed, whatever the file holds.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.sources.reading.streams import (
    _BROKEN_STREAM,
    _SURROGATE_ESCAPE,
    MAX_LINE_BYTES,
    Item,
    Parsed,
    Reject,
    Stream,
    bounded_lines,
    excerpt,
    valid_unicode,
)
from rmkit.errors import DataError


@dataclass(frozen=True)
class Reading:
    """The rows of an open file, and how many bytes of it have been read so far.

    A columnar file can be read as Arrow tables instead, from its beginning: either those or the items, not both.
    """

    items: Iterator[Item]
    position: Callable[[], int]
    tables: Iterator[Any] | None = None


def open_rows(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Reading:
    """Start reading a file of JSON lines, a JSON array, CSV, TSV or Parquet, plain or in gzip or zstd.

    What the file is follows from its first bytes and, for CSV and TSV, its name. Raises DataError where it is absent,
    a folder, unreadable or empty.
    """
    from data_pipelines.sources.reading import arrays, tables

    raw = _open(path)
    magic = raw.peek(4)[:4]
    if not magic:
        raise DataError(f"{path} is empty: 0 bytes, nothing to ingest")
    if magic == b"PAR1":
        return Reading(
            tables.parquet_rows(raw, path, max_line_bytes), raw.tell, tables.parquet_tables(raw, path, max_line_bytes)
        )
    stream, name = _decompressed(raw, path, magic)
    if name.endswith((".csv", ".tsv")):
        items = tables.csv_rows(stream, path, max_line_bytes, delimiter="\t" if name.endswith(".tsv") else ",")
    elif _first_byte(stream) == b"[":
        items = arrays.json_array(stream, max_line_bytes)
    else:
        items = json_lines(stream, max_line_bytes)
    return Reading(items, raw.tell)


def _open(path: Path) -> io.BufferedReader:
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, not a file; name its files, or hf://{path} for one saved by datasets or of Parquet"
        )
    try:
        if path.exists() and not path.is_file():  # it is read twice: for its rows and for its hash
            raise DataError(f"{path} is a pipe or a device, not a file; save its content to a file first")
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decompressed(raw: io.BufferedReader, path: Path, magic: bytes) -> tuple[Stream, str]:
    """The plain bytes and the file's name without the compression's suffix."""
    name = path.name.lower()
    if magic[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw), name.removesuffix(".gz")
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd")), name.removesuffix(".zst").removesuffix(".zstd")
    return raw, name


def _first_byte(stream: Stream) -> bytes:
    try:
        return stream.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except (*_BROKEN_STREAM, OSError):
        return b""


def json_lines(stream: Stream, max_bytes: int) -> Iterator[Item]:
    """One JSON object a line. A last line without a newline that does not parse was torn while being written."""
    for number, raw, fault in bounded_lines(stream, max_bytes):
        if fault:
            yield Reject(number, fault, excerpt(raw))
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            continue
        value, reason = parse_object(raw)
        if value is not None:
            yield Parsed(number, value)
            continue
        torn = not raw.endswith(b"\n") and reason in ("not JSON", "invalid UTF-8")
        yield Reject(number, "torn last line" if torn else reason, excerpt(raw))


def parse_object(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in these bytes, or None with the reason why there is none."""
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError:
        return None, "not JSON"
    if not isinstance(value, dict):
        return None, "not a JSON object"
    if _SURROGATE_ESCAPE.search(raw) and not valid_unicode(value):
        return None, "lone surrogate in the text"
    return value, ""
