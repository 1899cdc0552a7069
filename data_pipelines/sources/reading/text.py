"""Text files as UTF-8 with a known separator: what the bytes say, unless the user says it."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from typing import Any

from data_pipelines.sources.reading.streams import _BROKEN_STREAM, Stream
from rmkit.errors import UsageError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE_LINES = 100


def as_utf8(stream: Stream, encoding: str | None, where: str, notes: list[str]) -> Stream:
    """The stream as UTF-8: as it is, or transcoded from the encoding given or marked at its beginning.

    Text that is in no such encoding stays as it is; its rows are rejected one by one, and a note names what it may be.
    """
    try:
        head = stream.peek(1 << 16)[: 1 << 16]
    except (*_BROKEN_STREAM, OSError):
        return stream  # its reader says where it is cut off
    if encoding is None:
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
        if encoding is not None:
            notes.append(f"encoding {encoding}, told by its first bytes")
    if encoding is None:
        if likely := _other_encodings(head):
            notes.append(f"not UTF-8: it may be {' or '.join(likely)}; --encoding {likely[0]} reads it as that")
        return stream
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise UsageError(
            f"--encoding: Python knows no encoding {encoding!r}; try utf-8, cp1252, utf-16, gb18030"
        ) from None
    return stream if name == "utf-8" else io.BufferedReader(_Transcoded(stream, name))


class _Transcoded(io.RawIOBase):
    """A stream of another encoding as UTF-8; what cannot be decoded becomes bytes that are no UTF-8, so its row is
    rejected and not changed.
    """

    def __init__(self, source: Any, encoding: str):
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._waiting = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting and not self._ended:
            raw = self._source.read(1 << 16)
            self._ended = not raw
            self._waiting = self._decoder.decode(raw, final=not raw).encode("utf-8", "surrogateescape")
        part, self._waiting = self._waiting[: len(buffer)], self._waiting[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _other_encodings(head: bytes) -> list[str]:
    """The likely encodings of bytes that are not UTF-8, none for UTF-8 (its last character may be cut). Which of the
    code pages of Latin letters a text is in, a sample cannot tell: the usual one is always among them.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        pass
    else:
        return []
    if b"\0" in head:
        return []
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return ["cp1252"]
    best = from_bytes(head).best()
    name = str(best.encoding).replace("_", "-") if best is not None else "cp1252"
    is_latin = name.startswith(("cp125", "iso8859", "latin", "mac", "cp437", "cp85", "cp775", "hp-roman"))
    return list(dict.fromkeys(["cp1252", name])) if is_latin else [name]


def delimiter_of(head: bytes, name: str) -> str:
    """The separator of a table: a `sep=` line's, or the one that gives most lines one number of columns above one."""
    text = head.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = text.splitlines()
    if lines and lines[0].lower().startswith("sep=") and len(lines[0]) == 5:
        return lines[0][4]
    usual = "\t" if name.endswith((".tsv", ".tab")) else ","
    best = (0.0, 0, usual)
    for sign in (usual, *(one for one in ",;\t|" if one != usual)):
        try:
            rows = [len(row) for row in csv.reader(lines[: SAMPLE_LINES + 1][:-1] or lines, delimiter=sign) if row]
        except csv.Error:
            continue
        if not rows or rows[0] < 2:
            continue
        ((_, often),) = Counter(rows).most_common(1)
        share = often / len(rows)
        if (share, rows[0]) > best[:2]:
            best = (share, rows[0], sign)
    first = [len(row) for row in csv.reader(lines[:1], delimiter=usual)]
    return usual if first and first[0] > 1 else best[2]  # a header in the usual separator decides
