"""What a judge says itself: its reply without what it quotes, lists, shows as code or only thinks.

A verdict in there belongs to somebody else, or to a judge that has not decided yet. Markdown as CommonMark reads it,
without lazy continuation: a line right below a quote is the judge's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_THOUGHTS = "think|thinking|thoughts?|reasoning|scratchpad"
_QUOTES = r"response(?:-\w+)?|conversation|reference|rubric|quote|blockquote"
_TAG = re.compile(rf"(?i)<(?P<end>/?)(?P<name>{_THOUGHTS}|{_QUOTES})\b[^>\n]*>")
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}(?=[^`]*$)|~{3,})(?P<info>.*)")
_BULLET = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_PAIRS = {"“": "”", "„": "“", "«": "»"}


def own_words(text: str) -> str:
    """The text with everything else replaced by line ends, so that places keep their offsets."""
    text = _blanked(text, _tagged(text))
    text = _blanked(text, _blocks(text))
    return _blanked(text, _quoted(text))


def _blanked(text: str, spans: Iterator[tuple[int, int]]) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], "\n" * (end - max(start, done))]
        done = max(end, done)
    return "".join([*pieces, text[done:]])


def _tagged(text: str) -> Iterator[tuple[int, int]]:
    """Spans between tags. A thought that is not closed lasts to the end; one that is only closed began the reply."""
    opened: tuple[str, int] | None = None
    done = 0
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        is_thought = re.fullmatch(_THOUGHTS, name) is not None
        if opened is None and not tag["end"]:
            # A quoting tag counts where it begins a line and is closed; in a sentence it is only mentioned.
            closed = re.search(rf"(?i)</{name}\b", text[tag.end() :])
            if _begins_line(text, tag.start()) and (is_thought or closed):
                opened = name, tag.start()
        elif opened is not None and tag["end"] and name == opened[0]:
            yield opened[1], tag.end()
            opened, done = None, tag.end()
        elif opened is None and is_thought and done == 0:
            yield 0, tag.end()
            done = tag.end()
    if opened is not None:
        yield opened[1], len(text)


def _begins_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Lines of code fences (an open one lasts to the end), quotes and lists, with what is indented below an item."""
    fence, in_list, start = "", False, 0
    for line in text.splitlines(keepends=True):
        end = start + len(line)
        mark = _FENCE.match(line.rstrip("\r\n"))
        if fence:
            closes = mark and mark["fence"].startswith(fence) and not mark["info"].strip()
            fence = "" if closes else fence
            hidden = True
        elif mark:
            fence, hidden = mark["fence"], True
        elif line.lstrip().startswith(">"):
            hidden = True
        elif line.strip():
            in_list = _BULLET.match(line) is not None or (in_list and line.startswith(("  ", "\t")))
            hidden = in_list
        else:
            hidden = False
        if hidden:
            yield start, end
        start = end


def _quoted(text: str) -> Iterator[tuple[int, int]]:
    """Quotations over several lines: between typographic marks, or straight ones of which the first begins a line."""
    at = 0
    while (opening := re.compile(r'[“„«]|(?m:^[ \t]*")').search(text, at)) is not None:
        mark = opening[0].strip()
        end = text.find(_PAIRS.get(mark, '"'), opening.end())
        if end >= 0 and "\n" in text[opening.start() : end]:
            yield opening.start(), end + 1
        at = end + 1 if end >= 0 else opening.end()
