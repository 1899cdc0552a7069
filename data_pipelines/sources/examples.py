"""A row of every form, for the documentation and for tests: invented; of a form that is data, made from its own
table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from data_pipelines.sources import paths
from data_pipelines.sources.form import Form
from data_pipelines.sources.source import Source
from data_pipelines.sources.verdicts import as_number

FILLER = "x"  # for columns that only tell the form
_TALK = [{"role": "user", "content": "Which bird cannot fly?"}, {"role": "assistant", "content": "The ostrich."}]
_VALUES: dict[str, Any] = {
    "prompt": "Which bird cannot fly?",
    "talk": _TALK,
    "text": "Which bird cannot fly?\n---\nThe ostrich.",
    "chosen": "The ostrich.",
    "rejected": "The swallow.",
    "response_a": "The ostrich.",
    "response_b": "The swallow.",
    "responses": ["The ostrich.", "The swallow."],
    "preference": "a",
    "scores": [4, 1],
    "ranks": [0, 1],
    "response": "The ostrich.",
    "score": 4,
    "aspect": "true",
    "label": True,
    "steps": ["Birds fly.", "The ostrich does not."],
    "step_labels": [1, 1],
    "first_error": -1,
    "rubric": [{"criterion": "Names the ostrich", "points": 5}],
    "reference": "The ostrich.",
    "rater": "ann",
    "rater_kind": "human",
    "score_a": 4.0,
    "score_b": 1.0,
    "models": ["m", "n"],
    "system": "Answer in one line.",
    "rationale": "It is true.",
}


@cache
def _of_code() -> Mapping[str, Mapping[str, Any]]:
    text = Path(__file__).with_name("examples.json").read_text(encoding="utf-8")
    loaded: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return loaded


def example_of(source: Source) -> dict[str, Any]:
    """A row of the form. For judgments whose texts lie elsewhere the texts stand in it, as --items brings them."""
    if source.form is not None:
        return _of_form(source.form)
    return dict(source.example or _of_code()[source.name])


def _of_form(form: Form) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for role, text in form.roles.items():
        if not text.endswith("?") or role in ("score_a", "score_b", "rationale"):
            _place(row, text.removesuffix("?"), _value(form, role))
    for column in form.wide:
        row[column] = _first_label(form)
    if form.label_column and form.label_column not in form.roles.get("preference", ""):
        row[form.label_column] = form.label_values[0]
    for name in (*form.signature, *form.any_of[:1], *filter(None, [form.label_column])):
        if paths.value_at(row, paths.parse(name)) is paths.MISSING:
            _put(row, name, FILLER)
    if form.needs_items:
        row |= {"prompt": _VALUES["prompt"]}
        row |= {"response_a": "The ostrich.", "response_b": "The swallow."} if "preference" in form.roles else {}
        row |= {"responses": _VALUES["responses"]} if "scores" in form.roles else {}
        row |= {"response": "The ostrich."} if {"scores", "preference"}.isdisjoint(form.roles) else {}
    return row


def _value(form: Form, role: str) -> Any:
    """A value for a role, as the form writes it."""
    if role == "preference" and (form.values.sides or form.values.soft):
        return _first_label(form)
    if role.startswith("score.") or (role == "score" and form.values.numbers):
        return next(iter(form.values.numbers), 1)
    if role == "label" and "text" in form.roles:
        return ["good"]
    if role == "chosen" and "chosen[2]" in form.signature:
        return ["Ostrich.", "The ostrich.", "**The ostrich.**"]
    if role == "rejected" and "rejected[2]" in form.signature:
        return ["Swallow.", "The swallow.", "**The swallow.**"]
    if form.roles[role] in ("conversation_a", "conversation_b"):
        return [_TALK[0], {"role": "assistant", "content": _VALUES[role]}]
    return _VALUES.get(role, FILLER)


def _first_label(form: Form) -> Any:
    """A label that says the first response won."""
    value = next((value for value, side in form.values.sides.items() if side == "a"), None)
    if value is None:
        return 1.2 if form.values.soft else "a"
    return value if as_number(value) is None else int(value)


def _place(row: dict[str, Any], text: str, value: Any) -> None:
    path = paths.parse(text)
    if path.join or path.first_of:
        for at, part in enumerate(path.join or path.first_of[:1]):
            _put(row, part.text, value if at == 0 or path.joint == "/" else "")
    elif path.numbered:
        row |= dict(zip(path.numbered, value, strict=False))
    else:
        _put(row, text, value)


def _put(row: dict[str, Any], text: str, value: Any) -> None:
    """Set the value at a path, making what lies between: an element of the list for each value where the path has
    [].
    """
    _set(row, list(paths.parse(text).pieces), value)


def _set(place: Any, pieces: list[Any], value: Any) -> None:
    head, rest = pieces[0], pieces[1:]
    if head is paths.EACH or isinstance(head, int):
        values = value if isinstance(value, list) and head is paths.EACH else [value]
        for at, one in enumerate(values):
            while len(place) <= at:
                place.append({})
            if rest:
                _set(place[at], rest, one)
            else:
                place[at] = one
    elif not rest:
        place[head] = value
    else:
        if not isinstance(place.get(head), list | dict):
            place[head] = {} if isinstance(rest[0], str) else []
        _set(place[head], rest, value)
