"""Label Studio's JSON export: tasks with `data` and `annotations` (pairwise, ranker, choices, rating, textarea ...).

Which data fields are the prompt and the responses follows from their names (see `fields`), for the Ranker from the list
of items. Cancelled annotations stay in meta; predictions do too, unless there is no annotation: then a prediction is
the judgment of its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.fields import PROMPTS, Answers, authors, plain, split_fields
from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Judgment,
    Row,
    Unit,
    UnusableRowError,
    field,
    moment,
    record,
    records,
    response,
    rest,
    unit,
)

_USED = ("id", "data", "annotations", "completions", "predictions", "meta")


def matches(row: Row) -> bool:
    return isinstance(row.get("data"), dict) and any(
        isinstance(row.get(k), list) for k in ("annotations", "completions")
    )


def tasks(row: Row) -> Iterator[Unit]:
    data = record(row, "data")
    inputs = records(row, "annotations") if "annotations" in row else records(row, "completions")
    prompt, texts, others = _items(data) or split_fields(data, _compared(inputs))
    names = list(texts)
    judged = _newest([one for one in inputs if not one.get("was_cancelled")])
    verdicts = [_judgment(one, names, _rater(one), "human") for one in judged]
    hints = records(row, "predictions") if row.get("predictions") else []
    if not judged:
        verdicts = [_judgment(one, names, str(one.get("model_version") or "prediction"), "llm") for one in hints]
    meta = rest(row, *_USED) | dict(record(row, "meta")) | ({"data": others} if others else {})
    meta |= {"cancelled": len(inputs) - len(judged)} if len(judged) < len(inputs) else {}
    meta |= {"predictions": hints} if hints and judged else {}
    answers = [response(text, generator=by) for text, by in zip(texts.values(), authors(names, others), strict=True)]
    yield unit(
        prompt, answers, [verdict for verdict in verdicts if verdict], in_columns=True, row_id=row.get("id"), meta=meta
    )


def _compared(annotations: list[Mapping[str, Any]]) -> list[str]:
    """The fields that a pairwise control compares: what its to_name lists."""
    for annotation in annotations:
        results = annotation.get("result")
        for result in results if isinstance(results, list) else ():
            if isinstance(result, Mapping) and result.get("type") == "pairwise":
                return [name.strip() for name in str(result.get("to_name") or "").split(",")]
    return []


def _newest(annotations: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of one person's annotations of a task the newest, where times say which that is."""
    latest: dict[str, str] = {}
    for one in annotations:
        time = str(one.get("updated_at") or one.get("created_at") or "")
        latest[_rater(one)] = max(time, latest.get(_rater(one), ""))
    return [
        one
        for one in annotations
        if one.get("completed_by") is None
        or str(one.get("updated_at") or one.get("created_at") or "") == latest[_rater(one)]
    ]


def _items(data: Mapping[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]] | None:
    """The Ranker's List: objects with id and title, body or html. None where no field holds one."""
    lists = [
        name for name, value in data.items() if isinstance(value, list) and value and all(_is_item(v) for v in value)
    ]
    if not lists:
        return None
    prompt = next(
        (name for target in PROMPTS for name in data if plain(name).startswith(target) and name != lists[0]), None
    )
    if prompt is None:
        raise UnusableRowError("no field is named like a prompt")
    texts = {str(item["id"]): item.get("body") or item.get("html") or item.get("title") for item in data[lists[0]]}
    if len(texts) < len(data[lists[0]]):
        raise UnusableRowError("two items have the same id")
    return data[prompt], texts, rest(data, prompt, lists[0])


def _is_item(value: Any) -> bool:
    return isinstance(value, Mapping) and "id" in value and any(value.get(name) for name in ("body", "html", "title"))


def _rater(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, Mapping):
        by = by.get("id") or by.get("email")
    return "annotator" if by is None else str(by)


def _judgment(annotation: Mapping[str, Any], names: list[str], rater: str, kind: str) -> Judgment | None:
    answers = Answers(names)
    for result in records(annotation, "result"):
        _answer(answers, result, str(result.get("from_name") or result.get("type")))
    answers.extra |= {name: annotation[name] for name in ("ground_truth", "lead_time") if annotation.get(name)}
    vote = answers.judgment(rater, kind)
    if vote is not None:
        vote["time"] = moment(annotation.get("updated_at") or annotation.get("created_at"))
    return vote


def _answer(answers: Answers, result: Mapping[str, Any], question: str) -> None:
    value, target = record(result, "value"), str(result.get("to_name") or "")
    match result.get("type"):
        case "pairwise":
            _pairwise(answers, question, value.get("selected"), target.split(","))
        case "ranker":
            _ranker(answers, question, value.get("ranker"))
        case "choices":
            chosen = value.get("choices")
            answers.choice(question, chosen[0] if isinstance(chosen, list) and len(chosen) == 1 else chosen)
        case "rating":
            answers.rating(question, field(value, "rating"), target)
        case "textarea":
            text = value.get("text")
            answers.text(question, "\n".join(map(str, text)) if isinstance(text, list) else str(text or ""))
        case _:
            answers.extra[question] = dict(value)


def _pairwise(answers: Answers, question: str, selected: Any, shown: list[str]) -> None:
    """left and right are the objects in the order of the tag's toName, which may name the data fields."""
    if selected not in ("left", "right") or len(answers.names) != 2:
        raise UnusableRowError("a pairwise result needs two responses and left or right")
    at = {plain(name): index for index, name in enumerate(answers.names)}
    order = [at.get(plain(name)) for name in shown]
    first = order[0] if sorted(order, key=str) == [0, 1] and order[0] is not None else 0
    answers.choice(question, answers.names[first if selected == "left" else 1 - first])


def _ranker(answers: Answers, question: str, ranker: Any) -> None:
    """A list of ids is a ranking; so is one bucket. Several buckets are classes: each a score 1 of that name."""
    buckets = (
        {name: ids for name, ids in ranker.items() if name != "_"} if isinstance(ranker, Mapping) else {"": ranker}
    )
    if not all(isinstance(ids, list) for ids in buckets.values()):
        raise UnusableRowError("a ranker result is not a list of items")
    if len(buckets) == 1:
        (order,) = buckets.values()
        if order and not answers.ranking(question, {str(name): place for place, name in enumerate(order)}):
            raise UnusableRowError("a ranker result names an unknown item")
        return
    for bucket, ids in buckets.items():
        for name in map(str, ids):
            if name not in answers.names:
                raise UnusableRowError("a ranker result names an unknown item")
            answers.scores.append((answers.names.index(name), bucket, 1.0))
    answers.extra[question] = dict(ranker)


LABEL_STUDIO = Source(
    "label-studio",
    "Label Studio tasks: data, annotations",
    matches,
    tasks,
    labels="left or right of to_name; cancelled ones are no votes",
)
