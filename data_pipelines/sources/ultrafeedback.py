"""UltraFeedback (arXiv:2310.01377): four completions a prompt, rated 1-5 on four aspects by GPT-4; and binarized forms.

Ranks of the original follow `fine-grained_score` (the mean of the aspects; `overall_score` is known to hold 10s that
mean 1, argilla/ultrafeedback-binarized-preferences) and, where that is absent, the mean of the aspect ratings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.trl import without_prompt
from data_pipelines.sources.unit_builder import (
    Response,
    Row,
    Unit,
    UnusableRowError,
    field,
    finite,
    judgment,
    pair,
    ranks_of,
    record,
    records,
    response,
    rest,
    unit,
)

RATER = "gpt-4"


def is_original(row: Row) -> bool:
    return "instruction" in row and "completions" in row


def is_binarized(row: Row) -> bool:
    return "chosen" in row and "rejected" in row and ("score_chosen" in row or "chosen-rating" in row)


def is_argilla_binarized(row: Row) -> bool:
    return "chosen_response" in row and "rejected_response" in row and "instruction" in row


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


def binarized(row: Row) -> Iterator[Unit]:
    """HuggingFaceH4's prompt, prompt_id, chosen, rejected, messages, score_*; argilla's *-rating, *-model columns."""
    prompt = field(row, "prompt")
    sides = [
        response(without_prompt(prompt, field(row, side)), generator=row.get(f"{side}-model"))
        for side in ("chosen", "rejected")
    ]
    ratings = [row.get(f"score_{side}", row.get(f"{side}-rating")) for side in ("chosen", "rejected")]
    repeats = ("messages",) if row.get("messages") == row["chosen"] else ()  # it always repeats the chosen talk
    sided = [
        name for side in ("chosen", "rejected") for name in (side, f"score_{side}", f"{side}-rating", f"{side}-model")
    ]
    yield _pair(row, prompt, sides, ratings, ("prompt", "chosen", "rejected", "source", *sided, *repeats))


def argilla_binarized(row: Row) -> Iterator[Unit]:
    """argilla's earlier spelling: instruction, chosen_response, rejected_response, *_avg_rating, *_model."""
    sides = [
        response(field(row, f"{side}_response"), generator=row.get(f"{side}_model")) for side in ("chosen", "rejected")
    ]
    ratings = [row.get(f"{side}_avg_rating") for side in ("chosen", "rejected")]
    sided = [f"{side}_{what}" for side in ("chosen", "rejected") for what in ("response", "avg_rating", "model")]
    yield _pair(row, field(row, "instruction"), sides, ratings, ("instruction", "source", *sided))


def _pair(row: Row, prompt: Any, sides: list[Response], ratings: list[Any], used: tuple[str, ...]) -> Unit:
    scores = [(at, "score", value) for at, value in enumerate(ratings) if value is not None]
    gap = finite(ratings[0], "score") - finite(ratings[1], "score") if len(scores) == 2 else None
    subset, meta = row.get("source"), rest(row, *used)
    return pair(prompt, *sides, rater=RATER, rater_kind="llm", strength=gap, scores=scores, subset=subset, meta=meta)


ULTRAFEEDBACK = Source("ultrafeedback", "instruction, completions", is_original, original)
ULTRAFEEDBACK_BINARIZED = Source(
    "ultrafeedback-binarized", "prompt, chosen, rejected, score_chosen or chosen-rating", is_binarized, binarized
)
ULTRAFEEDBACK_ARGILLA = Source(
    "ultrafeedback-argilla", "instruction, chosen_response, rejected_response", is_argilla_binarized, argilla_binarized
)
