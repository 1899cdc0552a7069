"""Prometheus (arXiv:2310.08491, 2405.01535): feedback and preference collections. `instruction` is the judge's whole
prompt; what was asked is orig_instruction. Scores are texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field, judgment, response, rest, unit
from data_pipelines.sources.verdicts import RANKS, word
from rubrics.criteria import Criterion, rubric_json

_SCALE = tuple(f"orig_score{n}_description" for n in range(1, 6))
_USED = (
    *("instruction", "orig_instruction", "orig_criteria", "orig_reference_answer", "orig_feedback", "output", *_SCALE),
    *(
        "orig_response",
        "orig_response_A",
        "orig_response_B",
        "orig_score",
        "orig_score_A",
        "orig_score_B",
        "orig_preference",
    ),
)


def is_feedback(row: Row) -> bool:
    return "orig_instruction" in row and "orig_response" in row and "orig_score" in row


def is_preference(row: Row) -> bool:
    return (
        "orig_instruction" in row and "orig_response_A" in row and "orig_response_B" in row and "orig_preference" in row
    )


def feedback(row: Row) -> Iterator[Unit]:
    verdict = judgment(
        "gpt-4", "llm", scores=[(0, "score", field(row, "orig_score"))], rationale=row.get("orig_feedback")
    )
    yield unit(field(row, "orig_instruction"), [response(field(row, "orig_response"))], [verdict], **_own(row))


def preference(row: Row) -> Iterator[Unit]:
    decision = word(str(field(row, "orig_preference")))
    if decision is None:
        raise UnusableRowError("orig_preference is not A or B")
    scores = [(at, "score", row[name]) for at, name in enumerate(("orig_score_A", "orig_score_B")) if row.get(name)]
    verdict = judgment("gpt-4", "llm", ranks=RANKS[decision.side], scores=scores, rationale=row.get("orig_feedback"))
    answers = [response(field(row, f"orig_response_{side}")) for side in "AB"]
    yield unit(field(row, "orig_instruction"), answers, [verdict], in_columns=True, **_own(row))


def _own(row: Row) -> dict[str, Any]:
    levels = {n: row[name] for n, name in enumerate(_SCALE, 1) if row.get(name)}
    text = row.get("orig_criteria")
    rubric = rubric_json([Criterion(criterion=text, levels=levels)]) if isinstance(text, str) and text.strip() else None
    return {"rubric": rubric, "reference": row.get("orig_reference_answer"), "meta": rest(row, *_USED)}


FEEDBACK = Source(
    "prometheus-feedback",
    "orig_instruction, orig_response, orig_criteria, orig_score",
    is_feedback,
    feedback,
    labels="1 to 5",
)
PREFERENCE = Source(
    "prometheus-preference",
    "orig_instruction, orig_response_A, orig_response_B, orig_preference",
    is_preference,
    preference,
    labels="A or B",
)
