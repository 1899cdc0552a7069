"""Criteria in the spellings of published rubrics: lists of objects, lists of texts, or one text of numbered lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_pipelines.sources.unit_builder import UnusableRowError
from data_pipelines.sources.verdicts import as_number
from rmkit.errors import DataError
from rubrics.criteria import HARD_RULE, PRINCIPLE, Criterion, parse_criterion

_NUMBER = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+")
_TAG = re.compile(r"\s*\[(Hard Rule|Principle)\]\s*$", re.I)
_SHARE = re.compile(r"\s*\(importance:\s*(\d+(?:\.\d+)?)\s*/\s*(\d+)\)\s*$", re.I)
_CLASS = re.compile(r"^(Essential|Important|Optional|Pitfall)(?: Criteria)?:\s*", re.I)
_WORDS = {"critical": 4.0, "major": 3.0, "minor": 2.0, "additional": 1.0}
_TEXTS = ("criterion", "criteria", "criterion_description", "description", "title", "question", "text", "name")
_WEIGHTS = ("points", "weight", "criterion_weight", "importance")


def criteria(value: Any) -> tuple[Criterion, ...]:
    """The criteria of a rubric in any of these spellings. Raises UnusableRowError for an empty or unreadable one."""
    try:
        if isinstance(value, str):
            result = tuple(_of_line(item) for item in _items(value))
        elif isinstance(value, list):
            result = tuple(_of_line(item) if isinstance(item, str) else _of_object(item) for item in value)
        elif isinstance(value, Mapping):
            result = (_of_object(value),)
        else:
            raise UnusableRowError("rubric is neither text nor a list")
    except DataError as error:
        raise UnusableRowError(str(error)) from None
    if not result:
        raise UnusableRowError("empty rubric")
    return result


def _items(text: str) -> list[str]:
    """The items of a list as text: its lines, but for headings; where some end in a tag, what leads up to a tag is one
    item, however many lines it has. Raises DataError for text behind the last tag: it was cut off."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not any(_TAG.search(line) for line in lines):
        return [line for line in lines if not line.rstrip().endswith(":")]
    items: list[list[str]] = [[]]
    for line in lines:
        if not items[-1] and not _NUMBER.match(line) and line.rstrip().endswith(":"):
            continue  # a heading
        items[-1].append(line.strip())
        if _TAG.search(line):
            items.append([])
    if items[-1]:
        raise DataError("the last criterion has no tag where others have one")
    return [" ".join(item) for item in items[:-1]]


def _of_line(line: str) -> Criterion:
    """A line: its number is dropped, a mark at its end is the tag or the weight."""
    text = _NUMBER.sub("", line).strip()
    tag = weight = None
    if match := _TAG.search(text):
        text, tag = text[: match.start()], HARD_RULE if match[1].lower() == "hard rule" else PRINCIPLE
    if match := _SHARE.search(text):
        text, weight = text[: match.start()], float(match[1]) / float(match[2])
    return Criterion(criterion=text, tag=tag, weight=1.0 if weight is None else weight)


def _of_object(item: Any) -> Criterion:
    if not isinstance(item, Mapping):
        raise UnusableRowError("a criterion is neither text nor an object")
    levels = {n: item[f"score{n}_description"] for n in range(1, 11) if item.get(f"score{n}_description")}
    names = [name for name in _TEXTS if isinstance(item.get(name), str) and item[name].strip()]
    if not names:
        raise UnusableRowError("a criterion has no text")
    if set(item) <= {"criterion", "levels", "weight", "dimension", "tag", "explanation", "check", "question", "skill"}:
        return parse_criterion(item)
    text = item[names[0]]
    tag = None
    if match := _CLASS.match(text):
        text, tag = text[match.end() :], match[1].lower()
    axis = next((str(t).split(":", 1)[1] for t in item.get("tags") or [] if str(t).startswith("axis:")), None)
    return Criterion(
        criterion=text.strip().removesuffix(".") if tag else text,
        weight=_weight(item),
        levels=levels,
        tag=tag,
        dimension=axis,
    )


def _weight(item: Mapping[str, Any]) -> float:
    annotations = item.get("annotations")
    if isinstance(annotations, Mapping) and isinstance(annotations.get("weight_class"), str):
        value = annotations.get(annotations["weight_class"].replace(" ", "_") + "_weight")
    else:
        value = next((item[name] for name in _WEIGHTS if item.get(name) is not None), 1.0)
    if isinstance(value, str) and (word := re.match(r"[a-z]+", value.strip().lower())) and word[0] in _WORDS:
        return _WORDS[word[0]]
    number = as_number(value)
    if number is None:
        raise UnusableRowError("the weight of a criterion is not a number")
    return number
