"""One form per kind of task: what the browser draws under the responses, and how what it hands back becomes an answer.

A form is data alone, JSON-ready; `assets/answer.js` draws its four kinds (choices, grid, edit, spans) and gives every
choice its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling_ui.desk.answers import (
    Answer,
    criterion_levels,
    item_rubric,
    judged_turns,
    last_assistant,
    read_answer,
)
from labeling_ui.desk.items import Item
from labeling_ui.projects.definition import TaskDefinition
from rmkit.errors import DataError
from rmkit.types import Conversation

NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DECISIONS = ("accept", "edit", "reject")

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """`data` is what the browser draws; `says` makes the fields of an answer of what it hands back."""

    data: Mapping[str, Any]
    says: Callable[[Values], Mapping[str, Any]]

    def answer(self, values: Any) -> Answer:
        """The answer in what a browser sent. Raises DataError where it does not fit this form."""
        try:
            fields = self.says(values)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError("the page sent what is no answer to this form; reload it") from error
        return read_answer(fields)


def form(task: TaskDefinition, item: Item, shown: Sequence[Conversation]) -> Form:
    """The form of the task's kind."""
    match task.kind:
        case "pairwise" | "adjudication" | "live":
            return _pairwise(task)
        case "reaction":
            options = [{"reaction": number} for number in range(len(task.reactions))]
            return choices(task.reactions, options, text="Why?" if task.ask_rationale else None)
        case "ranking":
            return _ranking(task, len(shown))
        case "ratings":
            return _ratings(task, len(shown))
        case "rubric":
            return _rubric(item, len(shown))
        case "turns":
            return _turns(task, item)
        case "steps":
            labels = ["all right", *(f"step {number}" for number in range(1, len(item.steps) + 1))]
            said = [{"first_wrong": number - 1 if number else None} for number in range(len(labels))]
            return choices(labels, said, first=0, question="Which step is the first wrong one?")
        case "edit":
            return _edit(shown)
        case "spans":
            return _spans(task, len(shown))
        case "rubric_review":
            return _review(item)


def choices(
    labels: Sequence[str],
    said: Sequence[Mapping[str, Any]],
    *,
    first: int = 1,
    question: str | None = None,
    text: str | None = None,
) -> Form:
    """A row of choices, each of which is an answer; `text` is the label of a field for a reason."""
    options = [{"label": label, "key": str(number)} for number, label in enumerate(labels, start=first)]

    def says(values: Values) -> Mapping[str, Any]:
        reason = str(values.get("text") or "")
        return {**said[_index(values["choice"])], **({"rationale": reason} if text and reason else {})}

    return Form({"kind": "choices", "options": options, "label": question, "text": text}, says)


def _index(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _pairwise(task: TaskDefinition) -> Form:
    """From A much better over a tie to B much better, in the order of the digits."""
    strengths = list(enumerate(task.strengths, start=1)) if len(task.strengths) > 1 else [(None, "better")]
    options: list[tuple[str, int | None, int | None]] = [(f"A {word}", 0, n) for n, word in reversed(strengths)]
    if task.allow_tie:
        options.append(("tie", None, None))
    options += [(f"B {word}", 1, n) for n, word in strengths]
    said = [{"better": better} | ({"strength": n} if n else {}) for _, better, n in options]
    return choices([label for label, _, _ in options], said, text="Why?" if task.ask_rationale else None)


def _grid(rows: Sequence[Values], columns: Sequence[str], says: Callable[[Values], Values], **data: Any) -> Form:
    known = {"kind": "grid", "rows": rows, "columns": columns, "tray": False, "edit_value": None}
    return Form(known | data, says)


def _names(n: int) -> list[str]:
    """The letters of responses; a single one needs none."""
    return list(NAMES[:n]) if n > 1 else [""]


def _ranking(task: TaskDefinition, n: int) -> Form:
    places = [{"label": str(place), "key": str(place), "value": place} for place in range(1, n + 1)]
    least = f"; place at least {task.top_k}" if task.top_k else ""
    row = {"label": "place", "question": "which place?", "options": places}

    def says(values: Values) -> Values:
        return {"places": [None if place is None else place - 1 for place in values["cells"][0]]}

    return _grid([row | {"anchors": f"1 is the best; equal places are ties{least}"}], _names(n), says, tray=True)


def _ratings(task: TaskDefinition, n: int) -> Form:
    rows = []
    for aspect in task.aspects:
        values = range(aspect.low, aspect.high + 1)
        keys = _scale_keys(values)
        options = [{"label": str(value), "key": key, "value": value} for value, key in zip(values, keys, strict=True)]
        ends = f"{aspect.low}: {aspect.anchors[0]}, {aspect.high}: {aspect.anchors[-1]}" if aspect.anchors else None
        rows.append({"label": aspect.name, "question": aspect.question, "anchors": ends, "options": options})

    def says(values: Values) -> Values:
        cells = values["cells"]
        return {"ratings": {aspect.name: row for aspect, row in zip(task.aspects, cells, strict=True)}}

    return _grid(rows, _names(n), says)


def _scale_keys(scale: Iterable[int]) -> list[str]:
    """The digit that is the value where there is one (0 is 10), else the digits from 1 in their order."""
    values = list(scale)
    if (values[0] >= 0 and values[-1] <= 9) or (values[0] >= 1 and values[-1] == 10):
        return [str(value % 10) for value in values]
    return [str(place) for place in range(1, len(values) + 1)]  # two digits from the tenth on


def _rubric(item: Item, n: int) -> Form:
    """The row's own criteria by responses."""
    rows = []
    for number, one in enumerate(item_rubric(item), start=1):
        levels = criterion_levels(one)
        keys = _scale_keys(levels)
        options = [
            {"label": f"{value}: {meaning}" if one.levels else meaning, "key": key, "value": value}
            for (value, meaning), key in zip(levels.items(), keys, strict=True)
        ]
        label = one.criterion if len(one.criterion) < 40 else f"criterion {number}"
        rows.append({"label": label, "question": one.criterion, "anchors": one.explanation, "options": options})
    return _grid(rows, _names(n), lambda values: {"criteria_scores": values["cells"]})


def _turns(task: TaskDefinition, item: Item) -> Form:
    grades = [{"label": name, "key": str(key + 1), "value": key} for key, name in enumerate(task.grades)]
    rows = [
        {"label": f"turn {number}", "question": f"turn {number}", "anchors": None, "options": grades}
        for number in range(1, len(judged_turns(item)) + 1)
    ]
    return _grid(rows, [""], lambda values: {"grades": [grade for (grade,) in values["cells"]]})


def quiz_form(task: TaskDefinition) -> Form:
    """The task's quiz, question by question."""
    rows = [
        {
            "label": f"question {number}",
            "question": one.text,
            "anchors": None,
            "options": [{"label": choice, "key": str(key + 1), "value": key} for key, choice in enumerate(one.choices)],
        }
        for number, one in enumerate(task.quiz, start=1)
    ]
    return _grid(rows, [""], lambda values: {})


def quiz_choices(values: Any) -> list[int | None]:
    """What was chosen at each question of `quiz_form`. Raises DataError for anything else."""
    try:
        chosen = [choice for (choice,) in values["cells"]]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError("the page sent what is no answer to the quiz; reload it") from error
    if not all(choice is None or type(choice) is int for choice in chosen):
        raise DataError("the page sent what is no answer to the quiz; reload it")
    return chosen


def _review(item: Item) -> Form:
    options = [{"label": name, "key": str(key), "value": name} for key, name in enumerate(DECISIONS, start=1)]
    rows = [
        {"label": f"criterion {number}", "question": one.criterion, "anchors": one.explanation, "options": options}
        for number, one in enumerate(item_rubric(item), start=1)
    ]

    def says(values: Values) -> Values:
        reviewed = []
        for number, (decision,) in enumerate(values["cells"]):
            if decision is None:
                continue
            wording = {"text": values["texts"].get(str(number))} if decision == "edit" else {}
            reviewed.append({"criterion": number, "decision": decision} | wording)
        return {"criteria": reviewed}

    return _grid(rows, [""], says, edit_value="edit")


def _edit(shown: Sequence[Conversation]) -> Form:
    starts = [
        {"name": name, "text": turns[last_assistant(turns)].content} for name, turns in zip(NAMES, shown, strict=False)
    ]

    def says(values: Values) -> Values:
        place = _index(values["place"])
        return {"better": place, "edit": values["texts"].get(str(place)) or starts[place]["text"] or None}

    return Form({"kind": "edit", "label": "Your version", "starts": starts, "begin": False}, says)


def message_form(start: str) -> Form:
    """A message to write, with the keys in it at once."""
    data = {"kind": "edit", "label": "Your message", "starts": [{"name": "", "text": start}], "begin": True}
    return Form(data, lambda values: {})


def written(values: Any, start: str) -> str:
    """What was written in a `message_form`. Raises DataError for anything else."""
    try:
        return str(values["texts"].get("0", start))
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError("the page sent no message; reload it") from error


def edited(task: TaskDefinition, shown: Sequence[Conversation], draft: Values) -> tuple[str, str] | None:
    """(before, now) of a text that is being edited, None where it is as it was."""
    try:
        place = _index(draft.get("place"))
        before, now = shown[place][last_assistant(shown[place])].content, str(draft["texts"][str(place)])
    except (LookupError, ValueError, TypeError):
        return None
    return (before, now) if task.kind == "edit" and now.strip() != before.strip() else None


def _spans(task: TaskDefinition, n: int) -> Form:
    labels = [{"label": label, "key": str(key)} for key, label in enumerate(task.span_labels, start=1)]

    def says(values: Values) -> Values:
        return {"spans": [dict(span) for span in values["spans"]]}

    return Form({"kind": "spans", "labels": labels, "columns": n}, says)
