"""The plain row forms about one response or none: id, source, meta and the fields of one kind of feedback.

rubrics    prompt, rubric                                  a unit without responses
edits      prompt, original, edited or edits               one response, the correction as judgment
talks      messages with thumbs, dialog_score              one unit per thumbed reply
answers    prompt, response, labels or critique            one response with ratings or a written critique
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.native import common, is_house, origin
from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Judgment,
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    record,
    records,
    response,
    rest,
    turns,
    unit,
)
from rmkit.errors import DataError
from rubrics.criteria import rubric_json
from rubrics.importers import house_criteria


def is_rubric(row: Row) -> bool:
    return is_house(row) and "rubric" in row


def is_edit(row: Row) -> bool:
    return is_house(row) and "original" in row and ("edited" in row or "edits" in row)


def is_talk(row: Row) -> bool:
    return is_house(row) and "messages" in row and "prompt" not in row


def is_answer(row: Row) -> bool:
    return is_house(row) and "response" in row and ("labels" in row or "critique" in row)


def rubrics(row: Row) -> Iterator[Unit]:
    """A rubric with its prompt. Weights inside a dimension are multiplied by the dimension's, which meta keeps."""
    items = records(row, "rubric")
    if not items:
        raise UnusableRowError("empty rubric")
    shares = {item["dimension"]: item["dimension_weight"] for item in items if "dimension_weight" in item}
    more = {"dimension_weights": shares} if shares else {}
    try:
        rubric = rubric_json(house_criteria(row))
    except DataError as error:
        raise UnusableRowError(str(error)) from None
    yield unit(field(row, "prompt"), [], kind="rubric", rubric=rubric, **common(row, "rubric", **more))


def edits(row: Row) -> Iterator[Unit]:
    """The original with one judgment for each correction; an editor who left it as it was gives no edit."""
    original = field(row, "original")
    inputs = records(row, "edits") if "edits" in row else [{"text": field(row, "edited"), **_feedback(row)}]
    judgments = [_edit(item, original, *origin(record(row, "meta"))) for item in inputs]
    used = ("original", "edited", "edits", "feedback")
    yield unit(field(row, "prompt"), [response(original)], judgments, **common(row, *used))


def _feedback(row: Row) -> dict[str, Any]:
    return {"feedback": row["feedback"]} if row.get("feedback") else {}


def _edit(item: Mapping[str, Any], original: Any, rater: str, kind: str) -> Judgment:
    text = field(item, "text")
    return judgment(
        item.get("annotator") or rater,
        kind,
        edit=text if text != original else None,
        rationale=item.get("feedback"),
        extra=rest(item, "text", "annotator", "feedback"),
    )


def talks(row: Row) -> Iterator[Unit]:
    """A thumbed reply is a unit: the talk before it is the prompt, thumb up scores 1, down 0. A talk without thumbs is
    one unit, its last reply, with the score of the talk. Thumbs before any user turn have no prompt: meta counts them.
    """
    raw = records(row, "messages")
    messages = turns(raw, "talk")
    answers = [at for at, message in enumerate(messages) if message.role == "assistant" and message.content.strip()]
    if not answers:
        raise UnusableRowError("no assistant turn in the talk")
    first_user = next((at for at, message in enumerate(messages) if message.role == "user"), len(messages))
    thumbed = [at for at in answers if raw[at].get("thumb") in ("up", "down")]
    usable = [at for at in thumbed if at > first_user]
    lost = {"thumbs_without_user_turn": len(thumbed) - len(usable)} if len(usable) < len(thumbed) else {}
    own = common(row, "messages", **lost)
    if usable:
        for at in usable:
            own["row_id"] = f"{row['id']}#{at}"
            verdict = judgment("volunteer", "human", scores=[(0, "thumb", 1.0 if raw[at]["thumb"] == "up" else 0.0)])
            yield _reply(raw, at, [verdict], own)
        return
    score = row.get("dialog_score")
    verdicts = [] if score is None else [judgment("volunteer", "human", scores=[(0, "dialog_score", score)])]
    yield _reply(raw, answers[-1], verdicts, own)


def _reply(raw: list[Mapping[str, Any]], at: int, verdicts: list[Judgment], own: dict[str, Any]) -> Unit:
    before = list(raw[:at])
    while before and before[-1].get("role") == "assistant":  # a bot that spoke twice: the reply is both lines
        before.pop()
    return unit(before, [response(list(raw[len(before) : at + 1]))], verdicts, **own)


def answers(row: Row) -> Iterator[Unit]:
    """One response with people's ratings and reasons, or with a written critique."""
    inputs = response(field(row, "response"), generator=row.get("model"))
    rater, kind = origin(record(row, "meta"))
    verdicts = [_rating(label) for label in records(row, "labels")] if "labels" in row else []
    if "critique" in row:
        if not isinstance(row["critique"], str) or not row["critique"].strip():
            raise UnusableRowError("empty critique")
        verdicts.append(judgment(rater, kind, rationale=row["critique"]))
    yield unit(field(row, "prompt"), [inputs], verdicts, **common(row, "response", "labels", "critique", "model"))


def _rating(label: Mapping[str, Any]) -> Judgment:
    score = label.get("score")
    return judgment(
        field(label, "annotator"),
        "human",
        scores=[] if score is None else [(0, "rating", score)],
        rationale=label.get("explanation"),
        extra=rest(label, "annotator", "score", "explanation"),
    )


RUBRICS = Source("rubrics", "id, source, prompt, rubric, meta", is_rubric, rubrics, labels="weights")
EDITS = Source(
    "edits", "id, source, prompt, original, edited or edits, meta", is_edit, edits, labels="the corrected text"
)
TALKS = Source("talks", "id, source, messages with thumbs, meta", is_talk, talks, labels="thumb up 1, down 0")
ANSWERS = Source(
    "answers",
    "id, source, prompt, response, labels or critique, meta",
    is_answer,
    answers,
    labels="score, or a critique",
)
