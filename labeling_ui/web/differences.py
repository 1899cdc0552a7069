"""What differs between two texts, word by word, as Markdown that shows them and does nothing else.

Matching words by Ratcliff and Metzener (1988), as difflib does it. Fewer than MIN_SAME matching words in a row count as
different unless both texts begin or end with them, so that stray articles and commas do not chop a passage up; long
stretches that are the same are folded.
Every character of the texts that could be markup is escaped; the only markup is on what differs.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

MIN_SAME = 3  # words
FOLD = 60  # words; a longer stretch that is the same shows only CONTEXT words at its ends
CONTEXT = 12
COLORS = ("orange", "blue")  # behind words that stand only in the first text, only in the second

_WORD = re.compile(r"(?:\w+|[^\w\s])\s*")
_SPACE_AT_END = re.compile(r"[ \t\r]+$", re.MULTILINE)
_MARKUP = re.compile(r"([!-/:-@\[-`{-~])")


@dataclass(frozen=True, slots=True)
class Differences:
    """Both texts as Markdown; `same` is the share of all their words that match, 1 for equal texts."""

    first: str
    second: str
    same: float


def differences(first: str, second: str) -> Differences:
    """The two texts with what differs marked; a text without words is marked as a whole."""
    words = [_WORD.findall(_SPACE_AT_END.sub("", text).strip()) for text in (first, second)]
    bare = [[word.rstrip() for word in side] for side in words]
    blocks = _matching(bare[0], bare[1])
    same = 2 * sum(size for _, _, size in blocks) / max(len(words[0]) + len(words[1]), 1)
    summary = [
        _words_text(side, [(block[place], block[2]) for block in blocks], color)
        for place, (side, color) in enumerate(zip(words, COLORS, strict=True))
    ]
    return Differences(summary[0], summary[1], same if any(words) else 1.0)


def _matching(first: list[str], second: list[str]) -> list[tuple[int, int, int]]:
    """(start in the first, start in the second, length) of the stretches that are the same."""
    result = difflib.SequenceMatcher(None, first, second).get_matching_blocks()
    ends = ((0, 0), (len(first), len(second)))
    return [
        (a, b, size)
        for a, b, size in result
        if size >= MIN_SAME or (size and ((a, b) in ends or (a + size, b + size) in ends))
    ]


def _words_text(words: list[str], same: list[tuple[int, int]], color: str) -> str:
    """The words as Markdown; `same` holds (start, length) of the stretches that stand in the other text too."""
    parts, at = [], 0
    for start, length in [*same, (len(words), 0)]:
        parts.append(_marked("".join(words[at:start]), color))
        at = start + length
        parts.append(_folded(words[start:at], is_first=start == 0, is_last=at == len(words)))
    return "".join(parts).strip()


def _folded(words: list[str], *, is_first: bool, is_last: bool) -> str:
    if len(words) <= FOLD:
        return escaped("".join(words))
    head = words[: 0 if is_first else CONTEXT]
    tail = words[len(words) - (0 if is_last else CONTEXT) :]
    left_out = len(words) - len(head) - len(tail)
    return f"{escaped(''.join(head))} *… {left_out} words the same …* {escaped(''.join(tail))}"


def _marked(text: str, color: str) -> str:
    """Words in bold with color behind them, line by line: Markdown has no marks across lines."""
    pieces = re.split(r"(\s*\n\s*|^\s+|\s+$)", text)
    return "".join(
        escaped(piece) if not piece or piece.isspace() else f":{color}-background[**{escaped(piece)}**]"
        for piece in pieces
    )


def escaped(text: str) -> str:
    """Markdown that shows this text as it is, its line breaks and indents included."""
    shown = re.sub(r"\n[ \t]+", lambda indent: "\n" + "\u00a0" * (len(indent[0]) - 1), _MARKUP.sub(r"\\\1", text))
    return re.sub(r"(?<!\n)\n(?!\n)", r"\\\n", shown)
