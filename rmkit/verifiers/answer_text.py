r"""Where a completion's final answer stands, and answers that are written differently but are the same.

The final answer is what stands in the last <answer> tags, else in the last \boxed{...}, else behind the last "####" or
"answer is", else the whole text; what a policy thought before (</think>) is not looked at. Two answers are the same
where their normal forms are: no case, outer punctuation, "x =", units' dollar and percent signs, \text{...}, \left,
brackets around one choice letter; numbers, also 1,000, 1e3, 1/2, \frac{1}{2} and 50\%, are compared as fractions.
"""

from __future__ import annotations

import re
from fractions import Fraction

_THOUGHT = "</think>"
_TAGS = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BEHIND = re.compile(r"(?:####|\banswer\s*(?:is|:|=))[:\s]*([^\n]+)", re.IGNORECASE)
_CLOSING = re.compile(r"[.!?](?=\s)")
_ASSIGNED = re.compile(r"^[a-z](?:_\{?\w\}?)?\s*=\s*(?=\S)")
_WRAPPED = re.compile(r"^(?:\\(?:text|mathrm|mathbf|textbf)\s*)?[({\[]\s*(.{1,200})\s*[)}\]]$", re.DOTALL)
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}|(-?)\\[dt]?frac\s*(\d)\s*(\d)")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\\,|\{,\})(?=\d{3}(?:\D|$))")
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|!|;|:|quad)(?![a-z])|\\[(\[\])]|\$")
_COMMA = re.compile(r"\s*,\s*")
LONGEST = 200  # characters of what can be a number


def final_answer(text: str) -> str:
    """The text's last answer; the whole text (after its thinking) where nothing marks one."""
    text = text.rpartition(_THOUGHT)[2]
    if tags := _TAGS.findall(text):
        text = tags[-1]
    if (boxed := last_boxed(text)) is not None:
        return boxed
    if behind := _BEHIND.findall(text):
        return _CLOSING.split(str(behind[-1]))[0].strip()
    return text.strip()


def marked_answer(text: str) -> str | None:
    """As `final_answer`, None where nothing in the text marks one."""
    rest = text.rpartition(_THOUGHT)[2]
    marked = _TAGS.search(rest) or last_boxed(rest) is not None or _BEHIND.search(rest)
    return final_answer(text) if marked else None


def last_block(text: str, fence: re.Pattern[str]) -> str:
    """The last code block behind the thinking, as the one group of `fence` finds it; all behind it without a block."""
    answer = text.rpartition(_THOUGHT)[2]
    blocks = fence.findall(answer)
    return str(blocks[-1]) if blocks else answer


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{...} or \fbox{...} holds, braces balanced to any depth; None where there is none."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    opening = text.find("{", start) if start >= 0 else -1
    if opening < 0 or text[text.find("b", start) :][:9].partition("{")[0].strip() not in ("boxed", "box"):
        return None
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[opening + 1 : place].strip()
    return None


def same_answer(first: str, second: str) -> bool:
    """Whether two answers have one normal form, or are the same number."""
    a, b = normal(first), normal(second)
    if _COMMA.sub(",", a) == _COMMA.sub(",", b):
        return True
    x, y = number_in(a), number_in(b)
    return x is not None and x == y


def normal(answer: str) -> str:
    """The normal form of an answer's text; numbers stay as they are written."""
    plain = _DROPPED.sub("", " ".join(answer.split())).strip(" .,;:!?'\"*`").casefold()
    plain = _ASSIGNED.sub("", plain)
    while match := _WRAPPED.match(plain):
        inner = match[1]
        if any(mark in inner for mark in ",()[]{}"):  # a pair, an interval, a set: its brackets mean something
            break
        plain = inner.strip()
    return plain


def number_in(text: str) -> Fraction | None:
    """The number that a text is, None where it is something else."""
    plain = _THOUSANDS.sub("", text[: LONGEST + 1]).replace(" ", "").casefold()
    if len(plain) > LONGEST:
        return None
    plain = _FRACTION.sub(lambda m: f"{m[1]}{m[2]}/{m[3]}" if m[2] is not None else f"{m[4]}{m[5]}/{m[6]}", plain)
    percent = plain.endswith("%")
    plain = plain.rstrip("%").rstrip("\\")
    numerator, slash, denominator = plain.partition("/")
    if not _NUMBER.fullmatch(numerator) or (slash and not _NUMBER.fullmatch(denominator)):
        return None
    below = Fraction(denominator) if slash else Fraction(1)
    if not below:
        return None
    return Fraction(numerator) / below / (100 if percent else 1)
