"""Paths into a row: where a role's value lies.

chosen.answer             a field of an object; a column whose own name is "chosen.answer" comes first
responses[].text          that field of every element of a list
annotations[0].value      one element
fields['a.b']             a name with dots
response_{1..32}          numbered columns as a list; those that a row lacks at the end are left out
instruction+input         texts joined by a line break, empty ones left out
better//chosen            the first of these that is there
task/run                  an id made of several columns, empty ones left out
winner_a|winner_b|tie     one-hot columns: the name of the one that is set
answer?                   may be missing

A column of just that name comes before all of this: "Which is better (A/B)?" is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rmkit.errors import UsageError

_PIECE = re.compile(r"\[\]|\[(\d+)\]|\['([^']*)'\]|\.?([^.\[\]]+)")
_RANGE = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")
EACH = object()
MISSING = object()


@dataclass(frozen=True)
class Path:
    """A parsed path; `columns` are the top-level columns that it reads."""

    text: str
    optional: bool
    join: tuple[Path, ...] = ()
    joint: str = ""
    first_of: tuple[Path, ...] = ()
    one_hot: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()
    pieces: tuple[Any, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        whole = (self.text, self.text.removesuffix("?"))
        if self.join or self.first_of:
            return (*whole, *(name for part in self.join or self.first_of for name in part.columns))
        return (*whole, *(self.one_hot or self.numbered or (str(self.pieces[0]),)))


@lru_cache(maxsize=1024)
def parse(text: str) -> Path:
    """Raises UsageError for what is no path."""
    plain = text.removesuffix("?")
    optional = plain != text
    if "//" in plain:
        return Path(text, optional, first_of=tuple(parse(part.strip()) for part in plain.split("//")))
    for sign, joint in (("+", "\n"), ("/", "/")):
        if sign in plain:
            return Path(text, optional, tuple(parse(part.strip()) for part in plain.split(sign)), joint)
    if "|" in plain:
        return Path(text, optional, one_hot=tuple(part.strip() for part in plain.split("|")))
    if match := _RANGE.fullmatch(plain):
        before, low, high, after = match.groups()
        if int(high) - int(low) > 10_000:
            raise UsageError(f"{text!r} names more than 10,000 columns")
        return Path(text, optional, numbered=tuple(f"{before}{n}{after}" for n in range(int(low), int(high) + 1)))
    pieces: list[Any] = []
    at = 0
    while at < len(plain):
        match = _PIECE.match(plain, at)
        if not match:
            raise UsageError(f"{text!r} is no path; expected e.g. chosen.answer, responses[].text or fields['a.b']")
        index, quoted, name = match.groups()
        pieces.append(EACH if match[0] == "[]" else int(index) if index else quoted if quoted is not None else name)
        at = match.end()
    if not pieces or not isinstance(pieces[0], str):
        raise UsageError(f"{text!r} is no path: it begins with no column")
    return Path(text, optional, pieces=tuple(pieces))


def value_at(row: Mapping[str, Any], path: Path) -> Any:
    """The value there, None where it is null, MISSING where the row has no such place."""
    if path.text in row:
        return row[path.text]
    plain = path.text.removesuffix("?")
    if plain in row:
        return row[plain]
    if path.first_of:
        candidates = [value for part in path.first_of if (value := value_at(row, part)) is not MISSING]
        return next(
            (value for value in candidates if value not in (None, "")), candidates[0] if candidates else MISSING
        )
    if path.join:
        values = [value_at(row, part) for part in path.join]
        texts = [value for value in values if value is not MISSING and value not in (None, "")]
        if len(texts) < 2:
            return texts[0] if texts else (None if any(value is not MISSING for value in values) else MISSING)
        return path.joint.join(map(str, texts))
    if path.one_hot:
        return _one_hot(row, path.one_hot)
    if path.numbered:
        values = [row.get(name) for name in path.numbered]
        while values and values[-1] is None:
            values.pop()
        return values or MISSING
    return _walk(row, path.pieces)


def _one_hot(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    if not any(name in row for name in names):
        return MISSING
    chosen = [name for name in names if str(row.get(name)).strip().lower() in ("1", "1.0", "true", "yes")]
    return chosen[0] if len(chosen) == 1 else None


def _walk(value: Any, pieces: tuple[Any, ...]) -> Any:
    for at, piece in enumerate(pieces):
        if piece is EACH:
            if not isinstance(value, list):
                return MISSING
            return [None if (one := _walk(item, pieces[at + 1 :])) is MISSING else one for item in value]
        if isinstance(piece, int):
            if not isinstance(value, list) or piece >= len(value):
                return MISSING
            value = value[piece]
        else:
            if not isinstance(value, Mapping) or piece not in value:
                return MISSING
            value = value[piece]
    return value
