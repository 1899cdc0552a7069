"""Process labels inside of texts: Math-Shepherd (arXiv:2312.08935), RLHFlow's talks, OpenRLHF's marked input, PRMBench.

math-shepherd  input: question and "Step 1: ... ки" in one text (the mark is Cyrillic); label: the same text with + or -
rlhflow-prm    a talk in which the user gives a step and the assistant says + or -; the first step follows the question
openrlhf-prm   input with a mark after each step, value: a list with one label a mark
prmbench       modified_process and the numbers of wrong steps from 1; redundency is needless, not wrong: it is kept
in meta
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.talks import content, is_talk, role_of
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    in_steps,
    judgment,
    require,
    rest,
    unit,
)
from data_pipelines.sources.verdicts import as_number
from warehouse.write.units import UNSTATED

MARK = "ки"
_FIRST = re.compile(r"(?=\bStep 1\s*:)")
_SIGNS = {"+": 1.0, "-": 0.0}
_MARKS = (MARK, "<extra_0>", "<|reserved_special_token_0|>", "[STEP]", "<step>", "\n\n\n\n\n")


def is_shepherd(row: Row) -> bool:
    return isinstance(row.get("input"), str) and MARK in row["input"] and isinstance(row.get("label"), str)


def shepherd(row: Row) -> Iterator[Unit]:
    require(is_shepherd(row), "an input with marks and a label")
    question, steps = _split(row["input"].split(MARK))
    signs = []
    label = row["label"]
    for step in row["input"].split(MARK)[:-1]:
        if not label.startswith(step) or label[len(step) : len(step) + 1] not in _SIGNS:
            raise UnusableRowError("label is not the input with + and - at its marks")
        signs.append(_SIGNS[label[len(step)]])
        label = label[len(step) + 1 :]
    verdict = judgment("roll-outs", "llm", step_labels=signs)
    yield unit(
        question,
        [in_steps(steps)],
        [verdict],
        kind="steps",
        subset=row.get("task"),
        meta=rest(row, "input", "label", "task"),
    )


def _split(parts: list[str]) -> tuple[str, list[str]]:
    """(question, steps) of texts that each ended with a mark; the question stands before "Step 1:"."""
    if parts[-1].strip():
        raise UnusableRowError("text after the last mark")
    lead = _FIRST.split(parts[0], maxsplit=1)
    if len(lead) != 2 or not lead[0].strip():
        raise UnusableRowError('no question before "Step 1:"')
    return lead[0].strip(), [lead[1].strip(), *(part.strip() for part in parts[1:-1])]


def is_rlhflow(row: Row) -> bool:
    talk = row.get("conversations", row.get("messages"))
    return (
        is_talk(talk)
        and all(str(content(t)).strip() in _SIGNS for t in talk if role_of(t) == "assistant")
        and any(role_of(t) == "assistant" for t in talk)
    )


def rlhflow(row: Row) -> Iterator[Unit]:
    require(is_rlhflow(row), "a talk of steps and signs")
    name = "conversations" if "conversations" in row else "messages"
    talk = row[name]
    parts = [str(content(turn)) for turn in talk if role_of(turn) == "user"]
    signs = [_SIGNS[str(content(turn)).strip()] for turn in talk if role_of(turn) == "assistant"]
    if len(parts) != len(signs):
        raise UnusableRowError("the number of labels differs from the number of steps")
    question, steps = _split([*parts, ""])
    verdict = judgment("roll-outs", "llm", step_labels=signs)
    yield unit(question, [in_steps(steps)], [verdict], kind="steps", row_id=row.get("id"), meta=rest(row, name, "id"))


def is_openrlhf(row: Row) -> bool:
    return (
        isinstance(row.get("input"), str)
        and isinstance(row.get("value"), list)
        and any(mark in row["input"] for mark in _MARKS)
    )


def openrlhf(row: Row) -> Iterator[Unit]:
    require(is_openrlhf(row), "an input with marks and values")
    mark = next(one for one in _MARKS if one in row["input"])
    parts = row["input"].split(mark)
    if len(parts) - 1 != len(row["value"]):
        raise UnusableRowError("the number of labels differs from the number of marks")
    question, steps = _split(parts)
    verdict = judgment(UNSTATED, "unknown", step_labels=[_step(value) for value in row["value"]])
    yield unit(
        question,
        [in_steps(steps)],
        [verdict],
        kind="steps",
        row_id=row.get("id"),
        meta=rest(row, "input", "value", "id"),
    )


def _step(value: Any) -> float | None:
    if value is None:
        return None
    number = _SIGNS.get(str(value).strip(), as_number(value))
    if number is None or not 0 <= number <= 1:
        raise UnusableRowError("a step label is not +, - or between 0 and 1")
    return number


def is_prmbench(row: Row) -> bool:
    return "modified_process" in row and "error_steps" in row and "classification" in row


def prmbench(row: Row) -> Iterator[Unit]:
    steps, wrong = field(row, "modified_process"), row["error_steps"]
    answer = in_steps(steps)
    if not isinstance(wrong, list) or not all(
        isinstance(at, int) and not isinstance(at, bool) and 1 <= at <= len(steps) for at in wrong
    ):
        raise UnusableRowError("error_steps are not numbers of steps from 1")
    verdict = judgment(
        "constructed",
        "constructed",
        step_labels=[float(at + 1 not in wrong) for at in range(len(steps))],
        rationale=row.get("reason"),
    )
    question = row.get("modified_question") or field(row, "question")
    meta = rest(
        row, "modified_process", "modified_question", "question", "error_steps", "reason", "idx", "classification"
    )
    meta["classification"] = row["classification"]
    yield unit(
        question, [answer], [verdict], kind="steps", row_id=row.get("idx"), subset=row["classification"], meta=meta
    )


MATH_SHEPHERD = Source(
    "math-shepherd", "input with marks, label with + and -", is_shepherd, shepherd, labels="+ right, - wrong"
)
RLHFLOW_PRM = Source(
    "rlhflow-prm", "conversations whose assistant says + or -", is_rlhflow, rlhflow, labels="+ right, - wrong"
)
OPENRLHF_PRM = Source(
    "openrlhf-prm", "input with marks, value", is_openrlhf, openrlhf, labels="+ and -, or numbers 0 to 1"
)
PRMBENCH = Source(
    "prmbench",
    "modified_process, error_steps, classification",
    is_prmbench,
    prmbench,
    labels="wrong steps from 1",
    is_benchmark=True,
)
