"""MultiPref (arXiv:2410.19133): two replies judged by two crowd workers and two experts on helpfulness, truthfulness,
harmlessness and overall; the overall verdict is the vote, the others and the confidences stay beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    records,
    response,
    rest,
    unit,
)
from data_pipelines.sources.verdicts import RANKS, as_number, verdict

_LISTS = ("normal_worker_annotations", "expert_worker_annotations")


def matches(row: Row) -> bool:
    return "completion_a" in row and "completion_b" in row and any(name in row for name in _LISTS)


def units(row: Row) -> Iterator[Unit]:
    answers = [response(field(row, f"completion_{side}"), generator=row.get(f"model_{side}")) for side in "ab"]
    votes = [_vote(one, name.partition("_")[0]) for name in _LISTS if row.get(name) for one in records(row, name)]
    meta = rest(row, "text", "completion_a", "completion_b", "model_a", "model_b", "source", "comparison_id", *_LISTS)
    yield unit(
        field(row, "text"),
        answers,
        votes,
        in_columns=True,
        row_id=row.get("comparison_id"),
        subset=row.get("source"),
        meta=meta,
    )


def _vote(one: Mapping[str, Any], group: str) -> dict[str, Any]:
    preference = verdict(field(one, "overall_pref"))
    if preference is None or preference.side == "none":
        raise UnusableRowError("overall_pref is not A, B or a tie")
    extra = {"group": group} | rest(one, "evaluator", "overall_pref", "timestamp", "time_spent")
    spent = as_number(one.get("time_spent"))
    return judgment(
        field(one, "evaluator"),
        "human",
        ranks=RANKS[preference.side],
        strength=preference.strength,
        extra=extra,
        time=one.get("timestamp"),
        duration_s=spent,
    )


MULTIPREF = Source(
    "multipref",
    "text, completion_a, completion_b, *_worker_annotations",
    matches,
    units,
    labels="A-is-clearly-better (2), A-is-slightly-better (1), Tie, B-...",
)
