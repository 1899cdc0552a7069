"""What a value of a label column says about a pair: a, b or tie, and how strongly.

Words have one meaning everywhere and are built in. A number means the first response in one form and the second in
another, so it is read only where a form or `--values` says what it stands for:

    1=a,2=b,0=tie          values one by one; none is no vote
    -3..-1=a,0=tie,1..3=b  ranges; the distance from the middle between them is the strength
    soft=1..2              a probability of the second response, from the first end of the range to the other
    Bad=1,Good=2           words of a rating as numbers
    1=?                    still to be filled in: what a refusal suggests can be pasted, but not run unread
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from rmkit.errors import UsageError

RANKS: dict[str, list[int | None]] = {"a": [0, 1], "b": [1, 0], "tie": [0, 0]}
MEANINGS = ("a", "b", "tie", "none")
RANGED = ("a", "b")
OPEN = "?"  # stands in a suggestion for a meaning that nobody said
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.I)
_TIES = frozenset(
    [
        "tie",
        "ties",
        "tied",
        "draw",
        "equal",
        "equals",
        "same",
        "both",
        "neither",
        "nopreference",
        "aboutthesame",
        "nodifference",
        "bothbad",
        "bothgood",
        "tiebothbad",
        "tiebothgood",
        "tieinconsistent",
        "equallygood",
        "equallybad",
        "botharebad",
        "botharegood",
        "botharethesame",
        "bothareequal",
        "bothareequallygood",
        "bothareequallybad",
        "bothequallygood",
        "bothequallybad",
        "allequal",
        "aboutequal",
        "similar",
    ]
)
_SIDES = {
    **dict.fromkeys(("a", "left", "first", "modela", "model1", "preferreda"), "a"),
    **dict.fromkeys(("b", "right", "second", "modelb", "model2", "preferredb"), "b"),
}
_NOUN = r"(?:the )?(?:response|answer|completion|output|assistant|option|candidate|reply|model|summary|text|choice)s?"
_NAMED = re.compile(rf"{_NOUN}[\s_-]*(?P<side>a|b|0|1|2|left|right)", re.I)
_BETTER = re.compile(
    rf"(?:{_NOUN}[\s_-]*)?(?P<side>a|b|left|right)[\s_-]+(?:is[\s_-]+)?"
    r"(?P<how>much|far|clearly|significantly|strongly|slightly|a bit|a little|marginally)?[\s_-]*"
    rf"(?:better|preferred|the best)(?:[\s_-]+than[\s_-]+(?:{_NOUN}[\s_-]*)?(?P<other>a|b|left|right))?\.?",
    re.I,
)
_RANKING = re.compile(r"(?:[A-Za-z]|\d+)(?:\s*[>=]\s*(?:[A-Za-z]|\d+))+")
_ARROWS = re.compile(r"(?P<one>[ab])\s*(?P<sign>>{1,3}|<{1,3}|=|~|≈|≻|≫)\s*(?P<two>[ab])", re.I)
_HOW = {
    **dict.fromkeys(("much", "far", "clearly", "significantly", "strongly"), 2.0),
    **dict.fromkeys(("slightly", "a bit", "a little", "marginally"), 1.0),
}


class Verdict(NamedTuple):
    """`side` is a, b, tie or none (no opinion); strength on the source's scale, None where it says nothing."""

    side: str
    strength: float | None = None


@dataclass(frozen=True)
class Values:
    """What the values of a label column mean. `text` is how it was written."""

    text: str = ""
    sides: Mapping[str, str] = field(default_factory=dict)
    ranges: Sequence[tuple[float, float, str]] = ()
    soft: tuple[float, float] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def middle(self) -> float | None:
        """Where a scale of ranges changes sides: zero where it is signed, else halfway between the ranges of a and of
        b; None where only one side has ranges.
        """
        if any(low < 0 for low, _, _ in self.ranges):
            return 0.0
        ends = {side: [(low, high) for low, high, one in self.ranges if one == side] for side in RANGED}
        if not all(ends.values()):
            return None
        lower, upper = sorted(ends.values(), key=min)
        return (max(high for _, high in lower) + min(low for low, _ in upper)) / 2

    def verdict(self, value: Any) -> Verdict | None:
        """What a value says by these rules alone; None where they do not name it."""
        text = as_text(value)
        if text.lower() in self.sides:
            return Verdict(self.sides[text.lower()])
        number = as_number(value)
        if number is None:
            return None
        for low, high, side in self.ranges:
            if low <= number <= high:
                middle = self.middle if side in RANGED else None
                return Verdict(side, None if middle is None else abs(number - middle))
        if self.soft is not None and self.soft[0] <= number <= self.soft[1]:
            share = (number - self.soft[0]) / (self.soft[1] - self.soft[0])
            side = "tie" if share == 0.5 else "b" if share > 0.5 else "a"
            return Verdict(side, round(max(share, 1 - share), 9))
        return None


def parse_values(text: str) -> Values:
    """Raises UsageError for a part that is not VALUE=a, b, tie, none or a number."""
    sides: dict[str, str] = {}
    ranges: list[tuple[float, float, str]] = []
    numbers: dict[str, float] = {}
    soft: tuple[float, float] | None = None
    for part in filter(None, (part.strip() for part in text.split(","))):
        value, sign, meaning = part.rpartition("=")
        value, meaning = value.strip(), meaning.strip()
        if meaning == OPEN:
            raise UsageError(
                f"--values {text!r}: write for each ? what the value says: a (the first reply is better), b (the "
                "second), tie or none (no vote); of a single reply its number, e.g. 1 for good and 0 for bad"
            )
        low, dots, high = (value if meaning.lower() in MEANINGS else meaning).partition("..")
        bounds = (as_number(low), as_number(high)) if dots else (None, None)
        if value == "soft" and bounds[0] is not None and bounds[1] is not None and bounds[0] < bounds[1]:
            soft = (bounds[0], bounds[1])
        elif sign and meaning.lower() in MEANINGS and bounds[0] is not None and bounds[1] is not None:
            ranges.append((min(bounds[0], bounds[1]), max(bounds[0], bounds[1]), meaning.lower()))
            last = ranges[-1]
            if clash := next((one for one in ranges if one[2] != last[2] and _overlap(one, last)), None):
                raise UsageError(f"--values {text!r}: {max(clash[0], last[0]):g} is {clash[2]} and {last[2]}")
        elif sign and value and meaning.lower() in MEANINGS and bounds == (None, None):
            if sides.setdefault(key := as_text(value).lower(), meaning.lower()) != meaning.lower():
                raise UsageError(f"--values {text!r}: {value} is {sides[key]} and {meaning.lower()}")
        elif sign and value and (number := as_number(meaning)) is not None:
            numbers[value.lower()] = number
        else:
            raise UsageError(
                f"--values takes VALUE=a, b, tie, none or a number, LOW..HIGH=a or soft=LOW..HIGH, got {part!r}"
            )
    return Values(text, sides, tuple(ranges), soft, numbers)


def _overlap(one: tuple[float, float, str], other: tuple[float, float, str]) -> bool:
    return max(one[0], other[0]) <= min(one[1], other[1])


def verdict(value: Any, values: Values | None = None, names: Sequence[Sequence[Any]] = ()) -> Verdict | None:
    """What a label says: by `values`, by `names` (what else each side is called: its column, its model), by the words
    that mean the same everywhere. None where none of these knows it; "none" for an empty cell.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return Verdict("none")
    if values is not None and (stated := values.verdict(value)):
        return stated
    if not isinstance(value, str):
        return None
    plain = as_text(value)
    for side, own in zip("ab", names, strict=False):
        others = [_key(name) for at, group in enumerate(names) if "ab"[at] != side for name in group]
        if _key(plain) in map(_key, own) and _key(plain) not in others:
            return Verdict(side)
    if (match := _NAMED.fullmatch(plain)) and match["side"].isdigit():
        ends = [re.search(r"\d+$", str(group[0])) for group in names[:2] if group]
        numbers = [int(end[0]) for end in ends if end]
        if len(numbers) == 2 and numbers != [1, 2]:  # response_0 and response_1: "Response 1" is the second
            return Verdict("ab"[numbers.index(int(match["side"]))]) if int(match["side"]) in numbers else None
    return word(plain)


def _key(name: Any) -> str:
    """A name without case, spaces and signs; of names that are nothing else, themselves."""
    return re.sub(r"[^\w]|_", "", str(name).lower()) or str(name)


def word(text: str) -> Verdict | None:
    """The built-in meaning of a word; numbers have none."""
    text = text.strip().strip("[]").strip()
    key = re.sub(r"[^a-z0-9]", "", text.lower())
    if _NUMBER.fullmatch(text) or not key:
        return None
    if match := _ARROWS.fullmatch(text):
        one, two, sign = match["one"].lower(), match["two"].lower(), match["sign"]
        if one == two:
            return None
        if sign in "=~≈":
            return Verdict("tie")
        strength = {"≻": 1.0, "≫": 2.0}.get(sign, float(len(sign)))
        return Verdict(two if "<" in sign else one, strength)
    if key in _TIES:
        return Verdict("tie")
    if key in _SIDES:
        return Verdict(_SIDES[key])
    if match := _NAMED.fullmatch(text):
        side = match["side"].lower()
        return None if side == "0" else Verdict({"1": "a", "2": "b", "left": "a", "right": "b"}.get(side, side))
    if match := _BETTER.fullmatch(text):
        side, other = (
            {"left": "a", "right": "b"}.get(name.lower(), name.lower())
            for name in (match["side"], match["other"] or "")
        )
        return None if side == other else Verdict(side, _HOW.get((match["how"] or "").lower()))
    return None


def ranking(text: str) -> list[list[str]] | None:
    """The groups of "B>A=C", best first; None for any other text."""
    if not _RANKING.fullmatch(text.strip()):
        return None
    groups = [[one.strip() for one in group.split("=")] for group in text.split(">")]
    names = [name for group in groups for name in group]
    return groups if len(names) > 1 and len(set(names)) == len(names) else None


def as_number(value: Any) -> float | None:
    """The finite number that a value is, or that its text writes; None for anything else, true and false too."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            return None
    text = str(value).strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def as_text(value: Any) -> str:
    """A value as text, whole numbers without a point: 1.0, "1." and "+1" are "1"."""
    number = as_number(value)
    if number is not None:
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else str(number)
    return str(value).strip()
