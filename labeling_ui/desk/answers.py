"""From an answer, as the page or the REST API sends it, to the payload of a judgment event.

An answer speaks of *shown* places (0 is the first response on the screen); a judgment speaks of stored ones.
`shown_order[k]` is the stored position of what stood at place k. Everything is checked here, whoever sent it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labeling_ui.desk.items import Item
from labeling_ui.projects.definition import TaskDefinition
from rmkit.cli.display import printable
from rmkit.errors import DataError
from rmkit.ids import message_mapping
from rmkit.types import Conversation
from rubrics.criteria import Criterion, parse_rubric

Place = Annotated[int, Field(ge=0, lt=1000)]
MAX_TEXT = 200_000

# What an answer to each kind of task may say.
_SAYS: dict[str, frozenset[str]] = {
    "pairwise": frozenset({"better", "strength"}),
    "adjudication": frozenset({"better", "strength"}),
    "ranking": frozenset({"places"}),
    "ratings": frozenset({"ratings"}),
    "rubric": frozenset({"criteria_scores"}),
    "turns": frozenset({"grades"}),
    "live": frozenset({"better", "strength", "live_turns"}),
    "steps": frozenset({"first_wrong", "steps"}),
    "edit": frozenset({"better", "edit"}),
    "reaction": frozenset({"reaction"}),
    "spans": frozenset({"spans"}),
    "rubric_review": frozenset({"criteria"}),
}
_ALWAYS = frozenset({"verdict", "reason", "rationale"})


class Marked(BaseModel):
    """A marked passage: its text and label, the place of its response, and where in it the passage starts.

    `start` counts characters of the response's assistant turns joined by two line breaks; without it the first place at
    which the text stands is meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    place: Place = 0
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    label: str
    start: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class Reviewed(BaseModel):
    """What became of one criterion of a rubric; `text` is the new wording of an edited one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    criterion: Place
    decision: Literal["accept", "edit", "reject"]
    text: Annotated[str, Field(max_length=MAX_TEXT)] | None = None


class Answer(BaseModel):
    """One answer in shown places; only the fields of the task's kind are set, and one of them must be.

    pairwise, adjudication: `better` is a place, null for a tie, with `strength` from 1. ranking: `places`, 0 the best,
    null unranked. ratings: `ratings` per aspect and place. rubric: `criteria_scores` per criterion and place, each one
    of the criterion's levels (0 and 1 where it names none). turns: `grades` of the assistant's turns, from 0. steps:
    `first_wrong` (null: all right) or `steps`. edit: `edit` is the new text of the response at place `better` (default
    0). reaction: `reaction` counts from 0. spans: `spans`, empty where nothing is to be marked. live: `better`
    and `strength` for a turn, `live_turns` for the whole chat. A tie and "all right"
    are written as null: an answer without its field says nothing, and is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    verdict: Literal["ok", "skip", "bad_item"] = "ok"
    better: Place | None = None
    strength: Annotated[int, Field(ge=1, le=4)] | None = None
    places: list[Place | None] | None = None
    ratings: dict[str, list[int | None]] | None = None
    criteria_scores: list[list[int | None]] | None = None
    grades: list[Place | None] | None = None
    first_wrong: Place | None = None
    steps: list[Literal[0, 1] | None] | None = None
    edit: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    reaction: Place | None = None
    live_turns: Annotated[int, Field(ge=1, lt=10_000)] | None = None
    spans: list[Marked] | None = None
    criteria: list[Reviewed] | None = None
    reason: Annotated[str, Field(max_length=2000)] | None = None
    rationale: Annotated[str, Field(max_length=MAX_TEXT)] | None = None


def read_answer(values: Any) -> Answer:
    """The answer, or DataError naming the first field that is wrong."""
    if not isinstance(values, Mapping):
        raise DataError(f"answer: expected a JSON object, got {values!r}"[:200])
    try:
        return Answer.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"answer: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def event_kind(task: TaskDefinition, answer: Answer) -> str:
    """The kind of event that the answer becomes."""
    if answer.verdict != "ok":
        return "judgment"
    return {"edit": "edit", "reaction": "reaction"}.get(task.kind, "judgment")


def says(task: TaskDefinition, item: Item, shown_order: Sequence[int], answer: Answer) -> dict[str, Any]:
    """The part of the payload that carries the answer, in stored positions. Raises DataError where it does not fit."""
    _require_fields(task, answer)
    if answer.verdict != "ok":
        if answer.verdict == "bad_item" and not answer.reason:
            raise DataError("answer: a bad item needs its reason")
        return {"verdict": answer.verdict, "rationale": answer.reason or answer.rationale}
    if task.ask_rationale and not (answer.rationale or "").strip():
        raise DataError("answer: this task asks for a reason; write one sentence")
    summary = _payload(task, item, shown_order, answer)
    return summary | ({"rationale": answer.rationale} if answer.rationale else {})


def _require_fields(task: TaskDefinition, answer: Answer) -> None:
    """An absent field is not a null: what was never said must not become a tie, or a solution without a fault."""
    fields, own = answer.model_fields_set, _SAYS[task.kind]
    expected = own if answer.verdict == "ok" else frozenset()
    if foreign := fields - expected - _ALWAYS:
        what = f"a {task.kind} answer" if answer.verdict == "ok" else f"an answer with verdict {answer.verdict}"
        raise DataError(f"answer: {', '.join(sorted(foreign))} has no meaning in {what}")
    if answer.verdict == "ok" and not fields & (own - {"strength"}):
        raise DataError(
            f"answer: a {task.kind} answer says {' or '.join(sorted(own - {'strength'}))}; nothing was said"
        )


def _payload(task: TaskDefinition, item: Item, shown: Sequence[int], answer: Answer) -> dict[str, object]:
    match task.kind:
        case "ranking":
            return {"ranks": _ranks(task, shown, answer)}
        case "ratings":
            return {"scores": _scores(task, shown, answer)}
        case "live" if answer.live_turns:  # a whole chat; its choices are events of their own
            return {"spans": [{"label": "live", "turns": answer.live_turns}]}
        case "pairwise" | "adjudication" | "live":
            return _pairwise(task, shown, answer)
        case "rubric":
            return {"scores": _criteria_scores(item, shown, answer)}
        case "turns":
            return {"scores": _grades(task, item, answer)}
        case "steps":
            return {"step_labels": _step_labels(len(item.step_ends), answer)}
        case "edit":
            edited = _stored(shown, answer.better or 0)
            return {"edit": _edited(item.responses[edited], answer), "extra": {"edited": edited}}
        case "reaction":
            return _reaction(task, answer)
        case "spans":
            return {"spans": _spans(task, item, shown, answer)}
        case "rubric_review":
            return {"spans": _criteria(answer)}


def _stored(shown: Sequence[int], place: int) -> int:
    if place >= len(shown):
        raise DataError(f"answer: place {place} was not shown; there are {len(shown)} responses")
    return shown[place]


def _pairwise(task: TaskDefinition, shown: Sequence[int], answer: Answer) -> dict[str, object]:
    if answer.better is None:
        if not task.allow_tie:
            raise DataError("answer: this task has no tie; choose one response")
        if answer.strength is not None:
            raise DataError(f"answer: a tie has no strength, got {answer.strength}")
        return {"ranks": [0] * len(shown)}
    if (answer.strength or 1) > len(task.strengths):
        raise DataError(f"answer: strength {answer.strength}, the task has {len(task.strengths)}")
    best = _stored(shown, answer.better)
    ranks = [int(position != best) for position in range(len(shown))]
    if answer.strength is None or len(task.strengths) == 1:
        return {"ranks": ranks}
    return {"ranks": ranks, "strength": float(answer.strength)}


def _ranks(task: TaskDefinition, shown: Sequence[int], answer: Answer) -> list[int | None]:
    if answer.places is None or len(answer.places) != len(shown):
        raise DataError(f"answer: places must name all {len(shown)} responses")
    inputs = sorted({place for place in answer.places if place is not None})
    least = min(task.top_k or len(shown), len(shown))
    if sum(place is not None for place in answer.places) < least:
        raise DataError(f"answer: rank at least {least} of the {len(shown)} responses")
    ranks: list[int | None] = [None] * len(shown)
    for place, position in zip(answer.places, shown, strict=True):
        ranks[position] = None if place is None else inputs.index(place)  # 1, 1, 3 and 0, 0, 1 are the same order
    return ranks


def _scores(task: TaskDefinition, shown: Sequence[int], answer: Answer) -> list[dict[str, object]]:
    aspects = {aspect.name: aspect for aspect in task.aspects}
    scores = []
    for name, values in (answer.ratings or {}).items():
        if name not in aspects:
            raise DataError(f"answer: no aspect {name!r}; the task rates {', '.join(aspects)}")
        if len(values) != len(shown):
            raise DataError(f"answer: {name} rates {len(values)} of {len(shown)} responses (null where you cannot say)")
        for value, position in zip(values, shown, strict=True):
            if value is None:
                continue
            if not aspects[name].low <= value <= aspects[name].high:
                raise DataError(f"answer: {name} goes from {aspects[name].low} to {aspects[name].high}, got {value}")
            scores.append({"response": position, "aspect": name, "value": float(value)})
    if not scores:
        raise DataError("answer: rate at least one response in one respect, or skip the item")
    return scores


def _criteria_scores(item: Item, shown: Sequence[int], answer: Answer) -> list[dict[str, object]]:
    """Each score under its criterion's own words: rows have different rubrics."""
    criteria, rows = item_rubric(item), answer.criteria_scores or []
    if len(rows) != len(criteria) or any(len(row) != len(shown) for row in rows):
        raise DataError(f"answer: {len(criteria)} criteria by {len(shown)} responses are scored (null: cannot say)")
    scores: list[dict[str, object]] = []
    for criterion, row in zip(criteria, rows, strict=True):
        levels = criterion_levels(criterion)
        for value, position in zip(row, shown, strict=True):
            if value is None:
                continue
            if value not in levels:
                allowed = ", ".join(map(str, levels))
                raise DataError(f"answer: {criterion.criterion!r} has the levels {allowed}, got {value}")
            scores.append({"response": position, "aspect": criterion.criterion, "value": float(value)})
    if not scores:
        raise DataError("answer: score at least one criterion of one response, or skip the item")
    return scores


def item_rubric(item: Item) -> tuple[Criterion, ...]:
    """The criteria of the item's own row."""
    return parse_rubric(json.loads(item.rubric or "[]"))


def criterion_levels(criterion: Criterion) -> Mapping[int, str]:
    """The levels of a criterion, from the lowest; one without levels is met or not."""
    return criterion.levels or {0: "not met", 1: "met"}


def judged_turns(item: Item) -> list[int]:
    """Positions of the assistant's turns in the prompt and its only response together."""
    turns = (*item.prompt, *item.responses[0])
    return [number for number, turn in enumerate(turns) if turn.role == "assistant"]


def _grades(task: TaskDefinition, item: Item, answer: Answer) -> list[dict[str, object]]:
    """Grades spread evenly over [0, 1], each turn an aspect of its own."""
    grades, n = answer.grades or [], len(judged_turns(item))
    if len(grades) != n:
        raise DataError(f"answer: {len(grades)} grades for {n} turns of the assistant (null: cannot say)")
    if all(grade is None for grade in grades):
        raise DataError("answer: grade at least one turn, or skip the item")
    best = len(task.grades) - 1
    if any(grade is not None and grade > best for grade in grades):
        raise DataError(f"answer: a grade is one of 0 to {best}")
    return [
        {"response": 0, "aspect": f"turn {number}", "value": grade / best}
        for number, grade in enumerate(grades, start=1)
        if grade is not None
    ]


def _step_labels(n_steps: int, answer: Answer) -> list[float | None]:
    if answer.steps is not None:
        if "first_wrong" in answer.model_fields_set:
            raise DataError("answer: first_wrong and steps are two answers; send one")
        if len(answer.steps) != n_steps:
            raise DataError(f"answer: {len(answer.steps)} verdicts for {n_steps} steps")
        if all(label is None for label in answer.steps):
            raise DataError("answer: no step has a verdict; judge at least one, or skip the item")
        return [None if label is None else float(label) for label in answer.steps]
    if "first_wrong" not in answer.model_fields_set:
        raise DataError("answer: steps is null; give a verdict for each step, or first_wrong")
    if answer.first_wrong is None:
        return [1.0] * n_steps
    if answer.first_wrong >= n_steps:
        raise DataError(f"answer: first_wrong {answer.first_wrong}, there are {n_steps} steps")
    right = answer.first_wrong
    return [1.0] * right + [0.0] + [None] * (n_steps - right - 1)


def _edited(response: Conversation, answer: Answer) -> list[dict[str, object]]:
    """The response with its last assistant turn replaced."""
    last = last_assistant(response)
    if not answer.edit or answer.edit.strip() == response[last].content.strip():
        raise DataError("answer: the text is unchanged; change it, or skip the item")
    turns = [message_mapping(message) for message in response]
    turns[last]["content"] = answer.edit
    return turns


def last_assistant(response: Conversation) -> int:
    """The position of the turn that an edit replaces."""
    return max(number for number, message in enumerate(response) if message.role == "assistant")


def _reaction(task: TaskDefinition, answer: Answer) -> dict[str, object]:
    """Reactions are spread evenly over [-1, 1]: thumbs are -1 and 1, three faces -1, 0 and 1."""
    if answer.reaction is None or answer.reaction >= len(task.reactions):
        raise DataError(f"answer: reaction must be one of 0 to {len(task.reactions) - 1}")
    return {"value": 2 * answer.reaction / (len(task.reactions) - 1) - 1}


def _spans(task: TaskDefinition, item: Item, shown: Sequence[int], answer: Answer) -> list[dict[str, object]]:
    if answer.spans is None:
        raise DataError("answer: spans is null; an empty list says that nothing is to be marked")
    results = []
    for span in answer.spans:
        if span.label not in task.span_labels:
            raise DataError(f"answer: no label {span.label!r}; the task has {', '.join(task.span_labels)}")
        position = _stored(shown, span.place)
        text = "\n\n".join(turn.content for turn in item.responses[position] if turn.role == "assistant")
        start, end = _located(text, span)
        results.append({"response": position, "start": start, "end": end, "text": text[start:end], "label": span.label})
    return results or [{"label": "none"}]


def _located(text: str, span: Marked) -> tuple[int, int]:
    """Where in the response the passage stands; the browser counts as the exact view shows it, control characters as
    their escapes."""
    if span.start is None:
        start = text.find(span.text)
        end = start + len(span.text)
    else:
        follows = zip(text, [*text[1:], ""], strict=True)
        shown = ["\r" if both == ("\r", "\n") else printable(both[0]) for both in follows]
        ends = list(accumulate(map(len, shown), initial=0))
        is_there = "".join(shown)[span.start :].startswith(span.text)
        start = bisect_left(ends, span.start) if is_there else -1
        end = bisect_left(ends, span.start + len(span.text))
    if start < 0:
        raise DataError("answer: a marked passage does not stand in the response there; select or copy it exactly")
    return start, end


def _criteria(answer: Answer) -> list[dict[str, object]]:
    if not answer.criteria:
        raise DataError("answer: review at least one criterion")
    if any(one.decision == "edit" and not (one.text or "").strip() for one in answer.criteria):
        raise DataError("answer: an edited criterion needs its new wording")
    return [one.model_dump(exclude_none=True) for one in answer.criteria]
