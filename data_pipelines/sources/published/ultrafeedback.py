"""UltraFeedback (arXiv:2310.01377): four completions a prompt, rated 1-5 on four aspects by GPT-4.

Ranks of the original follow `fine-grained_score` (the mean of the aspects; `overall_score` is known to hold 10s that
mean 1, argilla/ultrafeedback-binarized-preferences) and, where that is absent, the mean of the aspect ratings.
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
    finite,
    judgment,
    ranks_of,
    record,
    records,
    response,
    rest,
    unit,
)

RATER = "gpt-4"


def is_original(row: Row) -> bool:
    items = row.get("completions")
    return "instruction" in row and isinstance(items, list) and all(isinstance(one, Mapping) for one in items)


def original(row: Row) -> Iterator[Unit]:
    items = records(row, "completions")
    if not items:
        raise UnusableRowError("no responses")
    answers = [response(field(item, "response"), generator=item.get("model")) for item in items]
    scores = [triple for at, item in enumerate(items) for triple in _scores(at, item)]
    details = [rest(item, "response", "model", "fine-grained_score", "overall_score") for item in items]
    ranks = ranks_of([_total(item) for item in items])
    verdict = judgment(RATER, "llm", ranks=ranks, scores=scores, extra={"completions": details})
    meta = rest(row, "id", "instruction", "completions", "models")
    yield unit(field(row, "instruction"), answers, [verdict], row_id=row.get("id"), subset=row.get("source"), meta=meta)


def _scores(at: int, item: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    for aspect, note in record(item, "annotations").items():
        if (rating := _rating(note)) is not None:
            yield at, str(aspect), rating
    for name in ("fine-grained_score", "overall_score"):
        if item.get(name) is not None:
            yield at, name, item[name]


def _rating(note: Any) -> float | None:
    """The Rating of one aspect; "N/A" and absent ones are None."""
    value = note.get("Rating") if isinstance(note, Mapping) else None
    return None if value is None or str(value).strip().upper() in ("N/A", "") else finite(value, "rating")


def _total(item: Mapping[str, Any]) -> float | None:
    if item.get("fine-grained_score") is not None:
        return finite(item["fine-grained_score"], "fine-grained_score")
    inputs = [rating for note in record(item, "annotations").values() if (rating := _rating(note)) is not None]
    return sum(inputs) / len(inputs) if inputs else None


ULTRAFEEDBACK = Source(
    "ultrafeedback",
    "instruction, completions",
    is_original,
    original,
    labels="ratings 1 to 5 by aspect; overall_score is not used to rank",
)
