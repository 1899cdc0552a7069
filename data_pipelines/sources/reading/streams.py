"""Rows of a file that is not trusted: bounded lines, strict UTF-8, every fault a Reject."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

MAX_LINE_BYTES = 32 << 20

EXCERPT_CHARACTERS = 200

CUT_OFF = "the compressed file is cut off or damaged here"

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")

_BROKEN_STREAM = (EOFError, zlib.error, gzip.BadGzipFile)

Stream: TypeAlias = io.BufferedReader | gzip.GzipFile


class Parsed(NamedTuple):
    line: int  # 1-based line, or row where lines mean nothing
    value: dict[str, Any]


class Reject(NamedTuple):
    line: int
    reason: str
    excerpt: str
    source_row: str | None = None


Item = Parsed | Reject


def excerpt(raw: bytes | str) -> str:
    """The first 200 characters, safe to store: what is not UTF-8 shows as U+FFFD."""
    raw = raw[: 4 * EXCERPT_CHARACTERS]
    encoded = raw if isinstance(raw, bytes) else raw.encode(errors="replace")
    return encoded.decode(errors="replace")[:EXCERPT_CHARACTERS].replace("\0", "\ufffd")


def bounded_lines(stream: Stream, max_bytes: int) -> Iterator[tuple[int, bytes, str | None]]:
    """(number, bytes, fault) for each line. A line over the limit comes as its beginning, with the fault named; a
    damaged compressed stream ends with one last faulty line.
    """
    number = 0
    while True:
        try:
            raw = stream.readline(max_bytes + 1)
            fault = None
            if len(raw) > max_bytes and not raw.endswith(b"\n"):
                fault = f"line over the limit of {max_bytes / (1 << 20):g} MB"
                while (more := stream.readline(1 << 20)) and not more.endswith(b"\n"):
                    pass
        except (*_BROKEN_STREAM, OSError):
            yield number + 1, b"", CUT_OFF
            return
        if not raw:
            return
        number += 1
        yield number, raw, fault


def valid_unicode(value: Any) -> bool:
    """Whether every text inside a JSON value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
