"""Published rubrics in their own forms -> a request and its criteria.

biggen        BiGGen-Bench (arXiv 2406.05761): one criterion with five described scores, system prompt and input
flask         FLASK (arXiv 2307.10928): per skill a question and five described scores
deepresearch  DeepResearch Bench (arXiv 2506.11763): criteria with weights within weighted dimensions; a criterion's
              weight becomes dimension weight x its own, so that all add up to 1
healthbench   HealthBench (arXiv 2505.08775): criteria with points, negative for what must not be met
house         prompt and rubric as message list and list of criteria, also with dimension_weight

Unknown or missing fields are refused, naming the field: a rubric that is read half is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from rmkit.chat.reader import read_conversation
from rmkit.errors import DataError
from rmkit.types import Conversation, Message
from rubrics.aggregate import require_total
from rubrics.criteria import Criterion, parse_criterion

Form = Literal["biggen", "flask", "deepresearch", "healthbench", "house"]
Row = Mapping[str, Any]


def import_rubric(row: Row, *, form: Form | None = None) -> tuple[Conversation, tuple[Criterion, ...]]:
    """Request and criteria of one row; the form is recognized where it is not named.

    Raises DataError where it is none of these or something in it is missing or malformed.
    """
    match form or form_of(row):
        case "biggen":
            return _biggen(row)
        case "flask":
            return _flask(row)
        case "deepresearch":
            return _deepresearch(row)
        case "healthbench":
            return _healthbench(row)
        case _:
            return read_conversation(_list(row, "prompt"), role="user"), house_criteria(row)


def form_of(row: Row) -> Form:
    """Which form a row has. Raises DataError where it is none of them."""
    marks: dict[str, Form] = {
        "score_rubric": "biggen",
        "skill_rubrics": "flask",
        "criterions": "deepresearch",
        "rubrics": "healthbench",
        "rubric": "house",
    }
    result = [form for mark, form in marks.items() if mark in row]
    if len(result) != 1:
        raise DataError(
            f"no known form of rubric: a row with {', '.join(map(str, row)) or 'nothing'}; see rubrics/importers.py"
        )
    return result[0]


def _biggen(row: Row) -> tuple[Conversation, tuple[Criterion, ...]]:
    rubric = _mapping(row, "score_rubric")
    levels = {score: _text(rubric, f"score{score}_description") for score in range(1, 6)}
    system = [Message("system", row["system_prompt"])] if row.get("system_prompt") else []
    criterion = Criterion(criterion=_text(rubric, "criteria"), levels=levels, dimension=row.get("capability"))
    return (*system, Message("user", _text(row, "input"))), (criterion,)


def _flask(row: Row) -> tuple[Conversation, tuple[Criterion, ...]]:
    criteria = [
        Criterion(
            criterion=_text(skill, "question"),
            levels={score: _text(_mapping(skill, "scores"), str(score)) for score in range(1, 6)},
            dimension=_text(skill, "skill"),
        )
        for skill in _list(row, "skill_rubrics")
    ]
    return (Message("user", _text(row, "instruction")),), tuple(criteria)


def _deepresearch(row: Row) -> tuple[Conversation, tuple[Criterion, ...]]:
    shares = _mapping(row, "dimension_weight")
    criteria = []
    for dimension, items in _mapping(row, "criterions").items():
        if dimension not in shares:
            raise DataError(f"dimension_weight has no weight for {dimension!r}")
        result = tuple(
            Criterion(
                criterion=_text(item, "criterion"),
                weight=_number(item, "weight"),
                dimension=dimension,
                explanation=item.get("explanation"),
            )
            for item in items
        )
        require_total(result, 1.0)
        criteria += [_scaled(criterion, _number(shares, dimension)) for criterion in result]
    require_total(criteria, 1.0)
    return (Message("user", _text(row, "prompt")),), tuple(criteria)


def _healthbench(row: Row) -> tuple[Conversation, tuple[Criterion, ...]]:
    prompt = read_conversation(_list(row, "prompt"), role="user")
    criteria = []
    for item in _list(row, "rubrics"):
        axis = next((tag.split(":", 1)[1] for tag in item.get("tags", []) if tag.startswith("axis:")), None)
        criteria.append(Criterion(criterion=_text(item, "criterion"), weight=_number(item, "points"), dimension=axis))
    if not any(criterion.weight > 0 for criterion in criteria):
        raise DataError("no criterion has positive points, so nothing could be reached")
    return prompt, tuple(criteria)


def house_criteria(row: Row) -> tuple[Criterion, ...]:
    """The criteria under `rubric`, each weight times its `dimension_weight`. Raises DataError."""
    criteria = []
    for item in _list(row, "rubric"):
        share = _number(item, "dimension_weight") if "dimension_weight" in item else 1.0
        criterion = parse_criterion({key: value for key, value in item.items() if key != "dimension_weight"})
        criteria.append(_scaled(criterion, share))
    return tuple(criteria)


def _scaled(criterion: Criterion, share: float) -> Criterion:
    return replace(criterion, weight=round(criterion.weight * share, 12))  # 0.7 * 0.6 is no number to store


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name} must be a text, got {value!r}")
    return value


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _mapping(row: Row, name: str) -> Row:
    value = row.get(name)
    if not isinstance(value, Mapping) or not value:
        raise DataError(f"{name} must be an object, got {type(value).__name__}")
    return value


def _list(row: Row, name: str) -> list[Mapping[str, Any]]:
    value = row.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise DataError(f"{name} must be a list of objects, got {type(value).__name__}")
    return value
