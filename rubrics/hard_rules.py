"""Hard rules as code: what a request asks for in so many words is counted, not judged by a model.

A rule is a JSON object with its name and its values:

    {"rule": "max_words", "value": 100}      min_words, max_words, min_sentences, max_sentences, min_characters,
                                             max_characters, min_paragraphs, max_paragraphs, min_bullets, max_bullets
    {"rule": "bullets", "value": 3}          exactly so many bullet points (also: words, sentences, paragraphs)
    {"rule": "includes", "values": [...]}    every one of the texts, whatever its case ("any": true: at least one)
    {"rule": "excludes", "values": [...]}    none of them, as whole words
    {"rule": "begins_with", "value": "..."}, {"rule": "ends_with", "value": "..."}
    {"rule": "times", "value": "...", "min": 2, "max": 4}      how often a text occurs
    {"rule": "json", "keys": [...]}          valid JSON (in a code block or bare), an object with these keys
    {"rule": "code_block"}, {"rule": "table"}, {"rule": "heading"}, {"rule": "lower_case"}, {"rule": "upper_case"}
    {"rule": "no_commas"}, {"rule": "language", "value": "fr"}

Patterns are not among them: a rubric may come from a model, and a hostile one must not be able to stall a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rmkit.errors import DataError, unknown
from rubrics.criteria import Criterion
from rubrics.language import language_of

Check = Callable[[str], bool | None]

_BULLET = re.compile(r"(?m)^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S")
_SENTENCE = re.compile(r"[^.!?。！？\s][^.!?。！？]*(?:[.!?。！？]+|$)")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_FENCE = re.compile(r"(?s)\A\s*```(?:json)?\s*\n(.*?)\n```\s*\Z")

COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "sentences": lambda text: len(_SENTENCE.findall(text)),
    "paragraphs": lambda text: sum(not part.isspace() for part in _BLANK_LINE.split(text) if part),
    "bullets": lambda text: len(_BULLET.findall(text)),
}
FORMS: dict[str, Check] = {
    "code_block": lambda text: text.count("```") >= 2,
    "table": lambda text: bool(re.search(r"(?m)^\s*\|.+\|\s*\n\s*\|[ :|-]+\|\s*$", text)),
    "heading": lambda text: bool(re.search(r"(?m)^#{1,6} \S", text)),
    "lower_case": lambda text: text == text.lower(),
    "upper_case": lambda text: text == text.upper(),
    "no_commas": lambda text: "," not in text,
}
NAMES = tuple(
    [f"{bound}{name}" for bound in ("min_", "max_", "") for name in COUNTS]
    + [*FORMS, "includes", "excludes", "begins_with", "ends_with", "times", "json", "language"]
)


def compiled(check: Mapping[str, Any]) -> Check:
    """The rule as a function of a response: whether it is kept, None where that cannot be told (an unclear language).

    Raises DataError for an unknown rule, and for missing, surplus or senseless values.
    """
    name = check.get("rule")
    rest = {key: value for key, value in check.items() if key != "rule"}
    bound, counted = _count_of(str(name))
    if counted:
        return _counting(bound, COUNTS[counted], _number(rest, name))
    if name in FORMS:
        _only(rest, name)
        return FORMS[str(name)]
    match name:
        case "includes":
            return _includes(_texts(rest, name, "any"), bool(rest.get("any")))
        case "excludes":
            return _excludes(_texts(rest, name))
        case "begins_with" | "ends_with":
            return _edge(str(name), _text(rest, name))
        case "times":
            return _times(_text(rest, name, "min", "max"), rest.get("min", 1), rest.get("max"))
        case "json":
            return _json(_texts(rest, name, field="keys") if rest else [])
        case "language":
            target = _text(rest, name)
            return lambda text: None if (result := language_of(text)) is None else result == target
    raise DataError(unknown("rule", name, NAMES))


def checked(criteria: Sequence[Criterion], responses: Iterable[str]) -> list[list[bool | None]]:
    """[response][criterion]: kept, broken, or None where the criterion carries no check or it cannot be told."""
    checks = [compiled(criterion.check) if criterion.check else None for criterion in criteria]
    return [[check(text) if check else None for check in checks] for text in responses]


def _count_of(name: str) -> tuple[str, str | None]:
    bound = name[:4] if name[:4] in ("min_", "max_") else ""
    counted = name.removeprefix(bound)
    return bound, counted if counted in COUNTS else None


def _counting(bound: str, count: Callable[[str], int], limit: int) -> Check:
    match bound:
        case "min_":
            return lambda text: count(text) >= limit
        case "max_":
            return lambda text: count(text) <= limit
        case _:
            return lambda text: count(text) == limit


def _includes(texts: Sequence[str], any_of: bool) -> Check:
    target = [text.casefold() for text in texts]
    quantifier = any if any_of else all
    return lambda text: quantifier(one in folded for folded in [text.casefold()] for one in target)


def _excludes(texts: Sequence[str]) -> Check:
    target = [text.casefold() for text in texts]
    whole = [re.compile(rf"(?<!\w){re.escape(text)}(?!\w)") for text in target]

    def check(text: str) -> bool:
        folded = text.casefold()  # a plain search first: the pattern, ten times slower, mostly need not run
        return not any(word in folded and pattern.search(folded) for word, pattern in zip(target, whole, strict=True))

    return check


def _edge(name: str, target: str) -> Check:
    folded = target.casefold()
    if name == "begins_with":
        return lambda text: text.lstrip().casefold().startswith(folded)
    return lambda text: text.rstrip().casefold().endswith(folded)


def _times(target: str, least: Any, most: Any) -> Check:
    for bound in (least, most):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 0):
            raise DataError(f"rule times: min and max are whole numbers, got {bound!r}")
    folded = target.casefold()
    return lambda text: least <= text.casefold().count(folded) <= (len(text) if most is None else most)


def _json(keys: Sequence[str]) -> Check:
    def check(text: str) -> bool:
        fenced = _FENCE.match(text)
        try:
            value = json.loads(fenced[1] if fenced else text)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and set(keys) <= set(value) if keys else isinstance(value, dict | list)

    return check


def _only(rest: Mapping[str, Any], name: Any, *allowed: str) -> None:
    if surplus := sorted(set(rest) - set(allowed)):
        known = f"beside rule it takes {', '.join(allowed)}" if allowed else "it takes no key beside rule"
        raise DataError(f"rule {name}: unknown {', '.join(surplus)}; {known}")


def _number(rest: Mapping[str, Any], name: Any) -> int:
    _only(rest, name, "value")
    value = rest.get("value")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"rule {name} needs value, a whole number >= 0; {_got(rest, 'value')}")
    return value


def _text(rest: Mapping[str, Any], name: Any, *also: str) -> str:
    _only(rest, name, "value", *also)
    value = rest.get("value")
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"rule {name} needs value, a text; {_got(rest, 'value')}")
    return value


def _texts(rest: Mapping[str, Any], name: Any, *also: str, field: str = "values") -> list[str]:
    _only(rest, name, field, *also)
    values = rest.get(field)
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise DataError(f"rule {name} needs {field}, a list of texts; {_got(rest, field)}")
    return values


def _got(rest: Mapping[str, Any], field: str) -> str:
    return f"got {rest[field]!r}" if field in rest else "it has none"
