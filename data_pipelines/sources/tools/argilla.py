"""Argilla exports: what to_json/to_list (2.x), the REST interface, FeedbackDataset (1.x) and to_datasets write.

Rankings are lists of {"value", "rank"} in which equal ranks are ties, and are kept so. The 2.x client writes only an
order of names, in which ties are already lost (argilla#5712); such judgments say so in extra. Submitted responses are
judgments. Drafts and discarded ones stay in meta, as do suggestions, unless nobody has submitted anything: then a
suggestion is the judgment of its agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from data_pipelines.sources.fields import Answers, authors, split_fields
from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Judgment, Row, Unit, UnusableRowError, record, response, unit

_RECORD_FIELDS = ("id", "external_id", "_server_id", "metadata", "status", "vectors", "inserted_at", "updated_at")


class Answer(NamedTuple):
    question: str
    value: Any
    user: str
    status: str = "submitted"


def matches(row: Row) -> bool:
    return _is_record(row) or any(_is_flat_question(row, name) for name in row)


def _is_record(row: Row) -> bool:
    return isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), dict | list)


def _is_flat_question(row: Row, name: str) -> bool:
    """A question's column: NAME.responses in 2.x, a list of {"user_id", "value", "status"} in 1.x."""
    value = row[name]
    if name.endswith(".responses"):
        return True
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and {"user_id", "value"} <= set(v) for v in value)
    )


def records(row: Row) -> Iterator[Unit]:
    if _is_record(row):
        fields, answers, hints = record(row, "fields"), list(_nested_responses(row)), list(_nested_suggestions(row))
    else:
        fields, answers, hints = _flat(row)
    prompt, texts, others = split_fields(fields)
    names = list(texts)
    submitted = [one for one in answers if one.status == "submitted"]
    judgments = _judgments(submitted, names, "human") or _judgments(hints, names, "llm")
    meta = {name: row[name] for name in ("metadata", "status", "inserted_at", "updated_at") if row.get(name)}
    meta |= {"fields": others} if others else {}
    if waiting := [one._asdict() for one in answers if one.status != "submitted"]:
        meta["not_submitted"] = waiting
    if hints and submitted:
        meta["suggestions"] = [one._asdict() for one in hints]
    row_id = row.get("id") or row.get("external_id")
    replies = [response(text, generator=by) for text, by in zip(texts.values(), authors(names, others), strict=True)]
    yield unit(prompt, replies, judgments, in_columns=True, row_id=row_id, meta=meta)


def _nested_responses(row: Row) -> Iterator[Answer]:
    inputs = row["responses"]
    if isinstance(inputs, Mapping):  # question -> list of {"value", "user_id"}
        for question, answers in inputs.items():
            for answer in answers if isinstance(answers, list) else ():
                yield _read_answer(question, answer)
        return
    for answer in inputs:  # one per user, with the values of all questions
        if not isinstance(answer, Mapping):
            raise UnusableRowError("a response is not an object")
        for question, value in record(answer, "values").items():
            yield _read_answer(
                question, {**answer, "value": value.get("value") if isinstance(value, Mapping) else value}
            )


def _read_answer(question: str, answer: Any) -> Answer:
    if not isinstance(answer, Mapping):
        raise UnusableRowError("a response is not an object")
    user, status = str(answer.get("user_id") or "annotator"), str(answer.get("status") or "submitted")
    return Answer(question, answer.get("value"), user, status.rsplit(".", 1)[-1].lower())


def _nested_suggestions(row: Row) -> Iterator[Answer]:
    inputs = row.get("suggestions") or {}
    if not isinstance(inputs, Mapping | list):
        raise UnusableRowError("suggestions are neither an object nor a list")
    for question, hint in inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs):
        if isinstance(hint, Mapping) and hint.get("value") is not None:
            requests = hint.get("question_name") or question
            yield Answer(str(requests), hint["value"], str(hint.get("agent") or "suggestion"))


def _flat(row: Row) -> tuple[dict[str, Any], list[Answer], list[Answer]]:
    """Fields, responses and suggestions of a row whose questions are columns."""
    questions = [name.removesuffix(".responses") for name in row if _is_flat_question(row, name)]
    parts = {name for name in row for q in questions if name == q or name.startswith((f"{q}.", f"{q}-suggestion"))}
    fields = {name: value for name, value in row.items() if name not in parts and name not in _RECORD_FIELDS}
    answers: list[Answer] = []
    hints: list[Answer] = []
    for q in questions:
        if f"{q}.responses" in row:
            values = row[f"{q}.responses"] or []
            users = row.get(f"{q}.responses.users") or ["annotator"] * len(values)
            states = row.get(f"{q}.responses.status") or ["submitted"] * len(values)
            if not len(values) == len(users) == len(states):
                raise UnusableRowError("responses, users and status have different lengths")
            answers += [Answer(q, *answer) for answer in zip(values, users, states, strict=True)]
            hint, agent = row.get(f"{q}.suggestion"), row.get(f"{q}.suggestion.agent")
        else:
            answers += [_read_answer(q, answer) for answer in row[q]]
            about = row.get(f"{q}-suggestion-metadata")
            hint, agent = row.get(f"{q}-suggestion"), about.get("agent") if isinstance(about, Mapping) else None
        if hint is not None:
            hints.append(Answer(q, hint, str(agent or "suggestion")))
    return fields, answers, hints


def _judgments(statement: list[Answer], names: list[str], kind: str) -> list[Judgment]:
    """One judgment a user over all questions."""
    by_user: dict[str, Answers] = {}
    for question, value, user, _ in statement:
        _answer(by_user.setdefault(user, Answers(names)), question, value)
    result = (answers.judgment(user, kind) for user, answers in by_user.items())
    return [judgment for judgment in result if judgment]


def _answer(answers: Answers, question: str, value: Any) -> None:
    match value:
        case None:
            pass
        case {"rank": list() as ranks, "value": list() as values} if len(ranks) == len(values):
            _answer(answers, question, [{"value": v, "rank": r} for v, r in zip(values, ranks, strict=True)])
        case [{"value": _, "rank": _}, *_] if all(isinstance(item, Mapping) and "rank" in item for item in value):
            if not answers.ranking(question, {str(item.get("value")): item["rank"] for item in value}):
                answers.extra[question] = value
        case [str(), str(), *_] if answers.ranking(question, {str(name): at for at, name in enumerate(value)}):
            answers.extra[f"{question} (order only)"] = "any ties were lost by the exporter"
        case bool() | int() | float():
            answers.rating(question, value)
        case str() if answers.is_label(question, value):
            answers.choice(question, value)
        case str():
            answers.text(question, value)
        case _:
            answers.extra[question] = value


ARGILLA = Source(
    "argilla",
    "Argilla records, nested or flat",
    matches,
    records,
    labels="the names of responses; drafts and discarded ones are no votes",
)
