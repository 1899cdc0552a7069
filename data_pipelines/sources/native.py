"""The plain row forms that compare: one JSON object a line with id, source, meta and one kind of feedback.

pairs      prompt, chosen, rejected                        one judgment by the label's origin (meta.label_type)
votes      prompt, response_a, response_b, labels          one judgment a vote; the source's majority stays in meta
lists      prompt, responses (score, rank, ratings, labels per response)
steps      prompt, steps, labels, first_error
rubrics    prompt, rubric                                  a unit without responses
edits      prompt, original, edited or edits               one response, the correction as judgment
talks      messages with thumbs, dialog_score              one unit per thumbed reply
answers    prompt, response, labels or critique            one response with ratings or a written critique
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Judgment,
    Row,
    Unit,
    UnusableRowError,
    field,
    finite,
    in_steps,
    judgment,
    ranks_of,
    record,
    records,
    response,
    rest,
    unit,
)
from warehouse.write.units import UNSTATED

PREFERENCES: dict[Any, list[int]] = {"a": [0, 1], "b": [1, 0], "tie": [0, 0]}
COMMON = ("id", "source", "subset", "meta", "prompt")


def is_pair(row: Row) -> bool:
    return is_house(row) and "chosen" in row and "rejected" in row


def is_votes(row: Row) -> bool:
    return is_house(row) and "response_a" in row and "labels" in row


def is_list(row: Row) -> bool:
    return is_house(row) and "responses" in row


def is_steps(row: Row) -> bool:
    return is_house(row) and "steps" in row and "labels" in row


def is_house(row: Row) -> bool:
    return "id" in row and "source" in row and "meta" in row


def origin(meta: Row) -> tuple[str, str]:
    """Name and kind of the rater behind a label, from what meta says about where it is from."""
    label_type = str(meta.get("label_type") or "")
    if label_type == "llm-judge":
        return str(meta.get("judge") or "llm-judge").split(",")[0], "llm"
    if label_type.startswith("verified"):
        return "verified", "verifier"
    if label_type.startswith("constructed"):
        return "constructed", "constructed"
    if label_type.startswith("human"):
        several = "n_annotators" in meta or "votes_rejected" in meta or "grades_chosen" in meta
        return "annotator-majority" if several else label_type.replace("human", "annotator").replace(" ", "-"), "human"
    return UNSTATED, "unknown"


def common(row: Row, *used: str, **more: Any) -> dict[str, Any]:
    meta = dict(record(row, "meta"))
    return {
        "row_id": field(row, "id"),
        "subset": row.get("subset"),
        "split": meta.get("split"),
        "meta": {"source": row.get("source")} | meta | rest(row, *COMMON, *used) | more,
    }


def pairs(row: Row) -> Iterator[Unit]:
    """chosen won. The gap of scores or of mean grades, where given, is the strength; grades become scores."""
    meta = record(row, "meta")
    rater, kind = origin(meta)
    grades = [
        (at, "grade", _mean(meta[name])) for at, name in enumerate(("grades_chosen", "grades_rejected")) if name in meta
    ]
    extra = {key: meta[key] for key in ("votes_chosen", "votes_rejected", "votes_tie", "n_annotators") if key in meta}
    strength = meta.get("score_gap", meta.get("mean_gap"))
    verdict = judgment(rater, kind, ranks=[0, 1], strength=strength, scores=grades, extra=extra)
    models = meta.get("models")
    names = models if isinstance(models, list) and len(models) == 2 else (None, None)
    answers = [
        response(field(row, side), generator=name) for side, name in zip(("chosen", "rejected"), names, strict=True)
    ]
    yield unit(field(row, "prompt"), answers, [verdict], **common(row, "chosen", "rejected"))


def _mean(values: Any) -> float:
    if not isinstance(values, list) or not values or not all(isinstance(value, int | float) for value in values):
        raise UnusableRowError("grades are not a list of numbers")
    return sum(values) / len(values)


def votes(row: Row) -> Iterator[Unit]:
    """Each label is one judgment; no aggregate is made here."""
    models = record(row, "meta").get("models")
    names = models if isinstance(models, list) and len(models) == 2 else (None, None)
    answers = [
        response(field(row, side), generator=name)
        for side, name in zip(("response_a", "response_b"), names, strict=True)
    ]
    judgments = [_vote(label) for label in records(row, "labels")]
    yield unit(
        field(row, "prompt"), answers, judgments, in_columns=True, **common(row, "response_a", "response_b", "labels")
    )


def _vote(label: Mapping[str, Any]) -> Judgment:
    preference = label.get("preference")
    if not isinstance(preference, str) or preference not in PREFERENCES:
        raise UnusableRowError("preference is not a, b or tie")
    return judgment(
        field(label, "annotator"),
        "human",
        ranks=PREFERENCES[preference],
        strength=label.get("strength"),
        rationale=label.get("reason") or label.get("comment"),
        extra=rest(label, "annotator", "preference", "strength", "reason", "comment"),
    )


def lists(row: Row) -> Iterator[Unit]:
    """Several responses: ranked by `rank` (0 best) or by `score` (higher is better), or only labeled, or neither."""
    items = records(row, "responses")
    if not items:
        raise UnusableRowError("no responses")
    answers = [response(field(item, "text"), generator=item.get("model")) for item in items]
    details = [rest(item, "text", "model", "score", "rank", "scores", "labels") for item in items]
    more = {"responses": details} if any(details) else {}
    judgments = [*_ranking(row, items), *_labels(items)]
    yield unit(field(row, "prompt"), answers, judgments, **common(row, "responses", **more))


def _ranking(row: Row, items: list[Mapping[str, Any]]) -> Iterator[Judgment]:
    meta = record(row, "meta")
    rater, kind = origin(meta)
    if "n_annotators" in meta or any("ratings" in item for item in items):
        rater = "annotator-mean"
    scores = [triple for at, item in enumerate(items) for triple in _scores(at, item)]
    if all(item.get("rank") is not None for item in items):
        yield judgment(
            rater, kind, ranks=ranks_of([_number(item["rank"]) for item in items], best="low"), scores=scores
        )
    elif all(item.get("score") is not None for item in items):
        yield judgment(rater, kind, ranks=ranks_of([_number(item["score"]) for item in items]), scores=scores)
    elif scores:
        yield judgment(rater, kind, scores=scores)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnusableRowError("score or rank is not a number")
    return finite(value, "score or rank")


def _scores(at: int, item: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    """Every number that rates a response: score, its aspects, and the means of lists of ratings."""
    if item.get("score") is not None:
        yield at, "score", item["score"]
    for aspect, value in record(item, "scores").items():
        yield at, str(aspect), value
    for name, values in item.items():
        if name.endswith("_ratings"):
            yield at, name.removesuffix("_ratings"), _mean(values)


def _labels(items: list[Mapping[str, Any]]) -> Iterator[Judgment]:
    """One judgment an annotator: a named class of a response becomes the aspect of that name with value 1."""
    by_annotator: dict[str, list[tuple[int, str, Any]]] = {}
    for at, item in enumerate(items):
        for label in records(item, "labels") if "labels" in item else ():
            by_annotator.setdefault(str(field(label, "annotator")), []).append((at, str(field(label, "label")), 1.0))
    for annotator, scores in by_annotator.items():
        yield judgment(annotator, "human", scores=scores)


def steps(row: Row) -> Iterator[Unit]:
    """A response in steps with one label each: 1 right, 0 wrong, null after the first error."""
    labels = field(row, "labels")
    meta = record(row, "meta")
    answer = in_steps(field(row, "steps"), generator=meta.get("generator"))
    if not isinstance(labels, list) or len(labels) != len(answer["step_ends"]):
        raise UnusableRowError("the number of labels differs from the number of steps")
    if not all(label is None or (not isinstance(label, bool) and label in (0, 1)) for label in labels):
        raise UnusableRowError("a step label is not 1, 0 or null")
    rater, kind = origin(meta)
    verdict = judgment(rater, kind, step_labels=[None if label is None else float(label) for label in labels])
    own = common(row, "steps", "labels")
    yield unit(field(row, "prompt"), [answer], [verdict], kind="steps", **own)


PAIRS = Source("pairs", "id, source, prompt, chosen, rejected, meta", is_pair, pairs, labels="chosen is better")
ANNOTATORS = Source(
    "annotators",
    "id, source, prompt, response_a, response_b, labels, meta",
    is_votes,
    votes,
    labels="a, b, tie by annotator",
)
NWAY = Source(
    "nway", "id, source, prompt, responses, meta", is_list, lists, labels="rank 0 is best, or the higher score"
)
STEPS = Source(
    "steps",
    "id, source, prompt, steps, labels, meta",
    is_steps,
    steps,
    labels="1 right, 0 wrong, null after the first error",
)
