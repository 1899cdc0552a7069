"""Reading files row by row without ever trusting them: bounded lines, strict UTF-8, every fault a Reject.

A file yields one Row or one Reject for each row it holds, in order; blank lines are no rows. Nothing here raises for
what a row contains; DataError is kept for a file that cannot be read at all. Memory is bounded by the longest line
allowed, whatever the file holds.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_pipelines.sources.reading import arrays, shapes, tables
from data_pipelines.sources.reading.containers import Member, members, seekable
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
from data_pipelines.sources.reading.text import as_utf8, delimiter_of
from rmkit.errors import DataError, UsageError

MAX_DOCUMENT_BYTES = 1 << 30
SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file's bytes lie, where the user says so; None is told from the bytes."""

    encoding: str | None = None
    delimiter: str | None = None
    header_rows: int | None = None
    records: str | None = None
    sheet: str | None = None
    member: str | None = None
    max_line_bytes: int = MAX_LINE_BYTES


@dataclass(frozen=True)
class Reading:
    """The rows of an open file, and how many bytes of it have been read so far.

    A columnar file can be read as Arrow tables instead, from its beginning: either those or the items, not both.
    `notes` grow while it is read: what was guessed or padded.
    """

    items: Iterator[Item]
    position: Callable[[], int]
    tables: Iterator[Any] | None = None
    name: str = ""
    notes: list[str] = field(default_factory=list)


def open_rows(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES, layout: Layout | None = None) -> Reading:
    """Start reading a file that holds one table of rows. Raises DataError where it cannot be read, is empty, or is an
    archive of several.
    """
    layout = layout or Layout(max_line_bytes=max_line_bytes)
    several = members(path, member=layout.member)
    if len(several) > 1:
        raise DataError(
            f"{path} holds several files: {', '.join(one.name for one in several[:20])}; name one with --member"
        )
    return open_member(several[0], path, layout)


def open_member(member: Member, path: Path, layout: Layout) -> Reading:
    """Start reading a file of rows: JSON lines, a JSON document, delimited text, Parquet, Arrow or a spreadsheet.

    What it is follows from its first bytes and, for delimited text, its name. Raises DataError where it cannot be read.
    """
    where = str(path) if path.name.startswith(member.name) else f"{path}: {member.name}"
    notes: list[str] = []
    result = Reading(iter(()), member.position, None, member.name, notes)
    stream = member.open()
    match member.kind:
        case "parquet":
            source = seekable(stream, where)
            return replace(
                result,
                items=tables.parquet_rows(source, path, layout.max_line_bytes),
                tables=tables.parquet_tables(source, path, layout.max_line_bytes),
            )
        case "arrow" | "feather":
            return replace(result, items=tables.arrow_rows(seekable(stream, where), where))
        case "xlsx":
            header = layout.header_rows or 1
            return replace(result, items=tables.sheet_items(stream, where, sheet=layout.sheet, header_rows=header))
    text = as_utf8(stream, layout.encoding, where, notes)
    name = member.name.lower()
    first = _first_byte(text)
    delimited = layout.delimiter is not None or layout.header_rows is not None
    if not delimited and first == b"[":
        array = arrays.json_array(text, layout.max_line_bytes)
        return replace(result, items=array)
    if not delimited and first == b"{":
        return replace(result, items=_objects(text, layout, where))
    if delimited or name.endswith((".csv", ".tsv", ".tab")) or _looks_delimited(text, name):
        sign = layout.delimiter or delimiter_of(_head(text), name)
        if sign == "\\t":
            sign = "\t"
        if len(sign) != 1:
            raise UsageError(f"--delimiter takes one sign, got {sign!r}")
        rows = tables.csv_rows(
            text, path, layout.max_line_bytes, delimiter=sign, header_rows=layout.header_rows, notes=notes
        )
        return replace(result, items=rows)
    return replace(result, items=json_lines(text, layout.max_line_bytes))


def _head(stream: Stream) -> bytes:
    try:
        return stream.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
    except (*_BROKEN_STREAM, OSError):
        return b""


def _first_byte(stream: Stream) -> bytes:
    return _head(stream).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _looks_delimited(stream: Stream, name: str) -> bool:
    """Whether text that is not JSON and whose name says nothing is a table: lines of one number of columns."""
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return False
    head = _head(stream)
    try:
        lines = head.decode("utf-8-sig").splitlines()[:20]
    except UnicodeDecodeError:
        return False
    sign = delimiter_of(head, name)
    counts = {len(row) for row in csv.reader(lines[:-1] or lines, delimiter=sign)}
    return len(lines) > 1 and len(counts) == 1 and counts.pop() > 1


def _objects(stream: Stream, layout: Layout, where: str) -> Iterator[Item]:
    """Rows of text that begins with an object: one a line, or one document that holds them all."""
    if layout.records is None and not _is_document(stream):
        yield from json_lines(stream, layout.max_line_bytes)
        return
    try:
        raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (*_BROKEN_STREAM, OSError):
        raise DataError(f"{where} is cut off or damaged") from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"{where} is one JSON document over {MAX_DOCUMENT_BYTES >> 30} GB; write its rows as JSON lines"
        )
    text = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        yield from json_lines(io.BufferedReader(io.BytesIO(text)), layout.max_line_bytes)
        return
    for number, row in enumerate(shapes.rows_of(document, records=layout.records), 1):
        if not isinstance(row, dict):
            yield Reject(number, "not a JSON object", excerpt(json.dumps(row)))
        elif not valid_unicode(row):
            yield Reject(number, "lone surrogate in the text", excerpt(json.dumps(row)))
        else:
            yield Parsed(number, row)


def _is_document(stream: Stream) -> bool:
    """Whether the text is one document: its first line is no object of its own, or there is no second."""
    head = _head(stream)
    first, newline, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not newline and len(head) >= SAMPLE_BYTES:
        return False  # one long line: the lines' reader has the limits
    if parse_object(first)[0] is None:
        return len(first) < SAMPLE_BYTES and first.rstrip()[-1:] in (b"{", b"[", b",")
    return not rest.strip()


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
