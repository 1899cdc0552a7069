"""Mechanical Turk batches: Input.* are the item's columns, Answer.* the worker's answers. Rejected assignments are no
votes.

Answer.taskAnswers holds JSON: radio buttons are objects of which one key is true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from data_pipelines.sources.form import Form, shape_of
from data_pipelines.sources.inference.roles import guess
from data_pipelines.sources.source import Source
from data_pipelines.sources.table_reader import TableReader
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError

_OWN = ("HITId", "WorkerId", "AssignmentStatus")


def matches(row: Row) -> bool:
    return all(name in row for name in _OWN)


def units(row: Row) -> Iterator[Unit]:
    if str(row["AssignmentStatus"]).strip().lower() == "rejected":
        raise UnusableRowError("a rejected assignment")
    inputs = {name.removeprefix("Input."): value for name, value in row.items() if name.startswith("Input.")}
    answers: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith("Answer."):
            answers |= _answers(name.removeprefix("Answer."), value)
    for name, value in answers.items():
        if isinstance(value, Mapping) and all(isinstance(one, bool) for one in value.values()):
            chosen = [key for key, one in value.items() if one]
            answers[name] = chosen[0] if len(chosen) == 1 else None
    merged = {**inputs, **{(name if name not in inputs else f"answer.{name}"): v for name, v in answers.items()}}
    merged |= {"rater": row["WorkerId"], "HITId": row["HITId"]}
    merged |= {name: row[name] for name in ("SubmitTime", "WorkTimeInSeconds") if row.get(name)}
    yield from _reader(tuple(sorted(merged)), _verdicts(answers))(merged)


def _answers(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {name: value}
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return dict(value) if name == "taskAnswers" and isinstance(value, Mapping) else {name: value}


def _verdicts(answers: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((name, str(value)) for name, value in answers.items() if isinstance(value, str) and len(value) < 40)
    )


@lru_cache(maxsize=256)
def _reader(columns: tuple[str, ...], answers: tuple[tuple[str, str], ...]) -> TableReader:
    """Roles by the names of the batch's columns; a row has no more than its own answers to tell them from."""
    known = dict(answers)
    row = {name: known.get(name, f"A text of some length for {name}." if name not in known else "") for name in columns}
    own = guess([row])
    if shape_of(own.roles) is None:
        raise UnusableRowError("no columns of the batch are named like a prompt and replies")
    return TableReader(Form(name="mturk", roles={**own.roles, "rater": "rater"}, kind="human"))


MTURK = Source(
    "mturk", "HITId, WorkerId, AssignmentStatus, Input.*, Answer.*", matches, units, labels="the batch's own words"
)
