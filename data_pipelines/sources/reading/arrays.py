"""A JSON array of objects, read element by element: what Label Studio, Argilla and the hub's .json files hold."""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.sources.reading.streams import (
    CUT_OFF,
    Item,
    Parsed,
    Reject,
    Stream,
    excerpt,
    valid_unicode,
)

CHUNK_BYTES = 1 << 16
_SPACE = " \t\r\n"


@dataclass
class _Window:
    """The part of the text that is in memory: from the element being read on."""

    stream: Stream
    text: str = ""
    at: int = 0
    fault: str | None = None
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8-sig")("surrogateescape"))

    def more(self) -> bool:
        """Read on, at least as much again as is held, so that long elements cost linear time."""
        self.text, self.at = self.text[self.at :], 0
        target, raw = max(CHUNK_BYTES, len(self.text)), bytearray()
        try:
            while len(raw) < target and (part := self.stream.read1(CHUNK_BYTES)):  # read() would lose what came before
                raw += part  # a damaged end
        except (EOFError, zlib.error, OSError):
            self.fault = CUT_OFF
        self.text += self.decoder.decode(bytes(raw), final=not raw)
        return bool(raw)

    def skip(self, characters: str) -> str:
        """Pass over these characters; the next one, or "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in characters:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""


def json_array(stream: Stream, max_bytes: int) -> Iterator[Item]:
    """The elements in order; `line` counts them from 1.

    An element that is no JSON ends the reading (nobody can say where the next begins): one Reject stands for the rest.
    """
    window, decoder, number = _Window(stream), json.JSONDecoder(), 0
    window.skip(_SPACE)
    window.at += 1  # the bracket
    while True:
        following = window.skip(_SPACE + ",")
        number += 1
        if following == "]":
            return
        value, reason = _element(window, decoder, max_bytes) if following else (None, "torn: the array does not end")
        if reason:
            yield Reject(number, window.fault or reason, excerpt(window.text[window.at :]))
            return
        if not isinstance(value, dict):
            yield Reject(number, "not a JSON object", excerpt(json.dumps(value)))
        elif not valid_unicode(value):
            yield Reject(number, "invalid UTF-8 or a lone surrogate", excerpt(json.dumps(value)))
        else:
            yield Parsed(number, value)


def _element(window: _Window, decoder: json.JSONDecoder, max_bytes: int) -> tuple[Any, str]:
    while True:
        try:
            value, window.at = decoder.raw_decode(window.text, window.at)
            return value, ""
        except RecursionError:
            return None, "JSON nested too deeply; the rest of the array was not read"
        except ValueError:
            if len(window.text) - window.at > max_bytes:
                return None, f"no element ends within {max_bytes / (1 << 20):g} MB; the rest of the array was not read"
            if not window.more():
                return None, "not JSON, or torn; the rest of the array was not read"
