"""One form per kind of task: the controls under the responses.

Every choice has a key on the keyboard, shown on its button. Buttons send the answer from their callback, which reads
the form as it is at that moment; what is typed or chosen is kept as a draft on every change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from labeling_ui.desk.answers import Answer, Marked, Reviewed
from labeling_ui.desk.items import Item
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.web.texts import NAMES, show_marked, show_text
from rmkit.types import Conversation
from rubrics.criteria import parse_rubric

_DIGITS = "123456789"


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a form writes on: `keep` stores one field of the draft, `send` the answer. `key` tells items apart."""

    key: str
    draft: Mapping[str, Any]
    keep: Callable[[str, Any], None]
    send: Callable[[Answer], None]


def form(task: TaskDefinition, item: Item, shown: Sequence[Conversation], sheet: Sheet) -> None:
    """Draw the form of the task's kind."""
    match task.kind:
        case "pairwise" | "adjudication":
            _pairwise(task, sheet)
        case "reaction":
            _reaction(task, sheet)
        case "ranking":
            _ranking(task, len(shown), sheet)
        case "ratings":
            _ratings(task, len(shown), sheet)
        case "steps":
            _steps(item, sheet)
        case "edit":
            _edit(shown, sheet)
        case "spans":
            _spans(task, len(shown), sheet)
        case "rubric_review":
            _review(item, sheet)


def _text(label: str, name: str, sheet: Sheet, *, field: str, start: str = "", height: int = 80) -> Callable[[], str]:
    """A text area that starts from the draft's field and keeps every change; call the result for what stands in it."""
    widget = f"{name}-{sheet.key}"

    def text() -> str:
        return str(st.session_state[widget] or "")

    value = sheet.draft.get(field, start)
    st.text_area(label, value=value, key=widget, height=height, on_change=lambda: sheet.keep(field, text()))
    return text


def _rationale(task: TaskDefinition, sheet: Sheet) -> Callable[[], str | None]:
    if not task.ask_rationale:
        return lambda: None
    text = _text("Why?", "rationale", sheet, field="rationale")
    return lambda: text() or None


def choices(labels: Sequence[str], sheet: Sheet, answer: Callable[[int], Answer]) -> None:
    """Buttons in a row with the digits as shortcuts; pressing one sends its answer."""
    with st.container(horizontal=True, horizontal_alignment="center"):
        for number, label in enumerate(labels):

            def send(number: int = number) -> None:
                sheet.send(answer(number))

            shortcut = _DIGITS[number] if number < len(_DIGITS) else None
            st.button(label, key=f"choice-{number}-{sheet.key}", shortcut=shortcut, on_click=send)


def _send(label: str, sheet: Sheet, answer: Callable[[], Answer], *, shortcut: str | None = "Enter") -> None:
    def send() -> None:
        sheet.send(answer())

    st.button(label, key=f"send-{sheet.key}", shortcut=shortcut, type="primary", on_click=send)


def _pairwise(task: TaskDefinition, sheet: Sheet) -> None:
    """From A much better over a tie to B much better, in the order of the digits."""
    rationale = _rationale(task, sheet)
    strengths = list(enumerate(task.strengths, start=1)) if len(task.strengths) > 1 else [(None, "better")]
    options: list[tuple[str, int | None, int | None]] = [(f"A {word}", 0, n) for n, word in reversed(strengths)]
    if task.allow_tie:
        options.append(("tie", None, None))
    options += [(f"B {word}", 1, n) for n, word in strengths]

    def answer(number: int) -> Answer:
        _, better, strength = options[number]
        return Answer(better=better, strength=strength, rationale=rationale())

    choices([label for label, _, _ in options], sheet, answer)


def _reaction(task: TaskDefinition, sheet: Sheet) -> None:
    rationale = _rationale(task, sheet)
    icons = {"up": ":material/thumb_up: up", "down": ":material/thumb_down: down"}
    labels = [icons.get(name, name) for name in task.reactions]
    choices(labels, sheet, lambda number: Answer(reaction=number, rationale=rationale()))


def _ranking(task: TaskDefinition, n: int, sheet: Sheet) -> None:
    draft_values = sheet.draft.get("places") or [None] * n
    widgets = [f"place-{place}-{sheet.key}" for place in range(n)]

    def places() -> list[int | None]:
        return [st.session_state[widget] for widget in widgets]

    def answer() -> Answer:
        return Answer(places=[None if place is None else place - 1 for place in places()])

    for name, column, widget, place in zip(NAMES, st.columns(n), widgets, draft_values, strict=False):
        with column:
            options, change = list(range(1, n + 1)), lambda: sheet.keep("places", places())
            st.segmented_control(f"Place of {name}", options, default=place, key=widget, on_change=change)
    st.caption("1 is the best; equal places are ties" + (f"; place at least {task.top_k}" if task.top_k else ""))
    _send("Send", sheet, answer)


def _ratings(task: TaskDefinition, n: int, sheet: Sheet) -> None:
    draft_values = sheet.draft.get("ratings") or {}
    widgets = {
        aspect.name: [f"rate-{aspect.name}-{place}-{sheet.key}" for place in range(n)] for aspect in task.aspects
    }

    def ratings() -> dict[str, list[int | None]]:
        return {name: [st.session_state[widget] for widget in row] for name, row in widgets.items()}

    for aspect in task.aspects:
        st.markdown(f"**{aspect.name}**: {aspect.question}")
        if aspect.anchors:
            st.caption(f"{aspect.low}: {aspect.anchors[0]}, {aspect.high}: {aspect.anchors[-1]}")
        before = draft_values.get(aspect.name) or [None] * n
        for place, column in enumerate(st.columns(n)):
            with column:
                st.segmented_control(
                    f"{aspect.name} of {NAMES[place]}" if n > 1 else aspect.name,
                    list(range(aspect.low, aspect.high + 1)),
                    default=before[place],
                    key=widgets[aspect.name][place],
                    label_visibility="visible" if n > 1 else "collapsed",
                    on_change=lambda: sheet.keep("ratings", ratings()),
                )
    _send("Send", sheet, lambda: Answer(ratings=ratings()))


def _steps(item: Item, sheet: Sheet) -> None:
    for number, text in enumerate(item.steps, start=1):
        with st.container(border=True):
            st.caption(f"step {number}")
            show_text(text, key=f"step-{number}-{sheet.key}", plain=bool(st.session_state.get("is_plain")))
    _step_keys(len(item.steps), sheet)


def _step_keys(n: int, sheet: Sheet) -> None:
    """Digit = first wrong step, 0 = all are right. A number that could go on waits for Enter or its second digit."""
    typed = f"step-typed-{sheet.key}"

    def answer(number: int) -> Answer:
        st.session_state.pop(typed, None)
        return Answer(first_wrong=number - 1 if number else None)

    def press(digit: int) -> None:
        number = 10 * st.session_state.get(typed, 0) + digit
        if number > n:  # a slip: what was typed before it is forgotten too
            st.session_state.pop(typed, None)
        elif number == 0 or 10 * number > n:
            sheet.send(answer(number))
        else:
            st.session_state[typed] = number

    waiting = st.session_state.get(typed, 0)
    st.caption(f"Step {waiting}… a second digit, or Enter" if waiting else "Which step is the first wrong one?")
    with st.container(horizontal=True, horizontal_alignment="center"):
        for digit in range(min(n, 9) + 1):
            label = f"step {digit}" if digit else "all right"
            key = f"digit-{digit}-{sheet.key}"
            st.button(label, key=key, shortcut=str(digit), on_click=press, args=(digit,))
        for number in range(10, n + 1):
            key = f"number-{number}-{sheet.key}"
            st.button(f"step {number}", key=key, on_click=lambda number=number: sheet.send(answer(number)))
        if waiting:
            _send(f"Step {waiting}", sheet, lambda: answer(waiting))


def _edit(shown: Sequence[Conversation], sheet: Sheet) -> None:
    place = 0
    if len(shown) > 1:
        names = list(NAMES[: len(shown)])
        chosen = st.segmented_control("Start from", names, default="A", required=True, key=f"from-{sheet.key}")
        place = names.index(chosen or "A")
    before = shown[place][-1].content
    text = _text("Your version", f"edit-{place}", sheet, field=f"edit-{place}", start=before, height=260)
    if text().strip() != before.strip():
        show_marked(before, text(), names=("before", "yours"))
    _send("Send", sheet, lambda: Answer(better=place, edit=text() or None), shortcut=None)


def _spans(task: TaskDefinition, n: int, sheet: Sheet) -> None:
    marked: list[dict[str, Any]] = list(sheet.draft.get("spans") or [])
    widgets = {name: f"{name}-{sheet.key}" for name in ("passage", "label", "where")}
    names = list(NAMES[:n])

    def mark() -> None:
        summary = {name: st.session_state.get(widget) for name, widget in widgets.items()}
        if summary["passage"]:
            place = names.index(summary["where"]) if summary["where"] else 0
            sheet.keep("spans", [*marked, {"place": place, "text": summary["passage"], "label": summary["label"]}])

    with st.form(f"mark-{sheet.key}", clear_on_submit=True):
        st.text_input("Passage, copied exactly", key=widgets["passage"])
        labels = list(task.span_labels)
        st.segmented_control("It is", labels, default=labels[0], required=True, key=widgets["label"])
        if n > 1:
            st.segmented_control("in", names, default="A", required=True, key=widgets["where"])
        st.form_submit_button("Mark", shortcut="M", on_click=mark)
    for span in marked:
        st.text(f"{span['label']}: {span['text']}")
    _send(
        f"Send ({len(marked)} marked)", sheet, lambda: Answer(spans=[Marked(**span) for span in marked]), shortcut=None
    )


def _review(item: Item, sheet: Sheet) -> None:
    decided: list[Callable[[], Reviewed | None]] = []
    for number, criterion in enumerate(parse_rubric(json.loads(item.rubric or "[]"))):
        with st.container(border=True):
            decided.append(_criterion(number, criterion.criterion, sheet))
    _send("Send", sheet, lambda: Answer(criteria=[one for review in decided if (one := review()) is not None]))


def _criterion(number: int, text: str, sheet: Sheet) -> Callable[[], Reviewed | None]:
    """One criterion with its decision; call the result for what was decided, None where nothing was."""
    show_text(text, key=f"criterion-{number}-{sheet.key}")
    widget, options = f"decide-{number}-{sheet.key}", ["accept", "edit", "reject"]
    decision = st.segmented_control(f"Criterion {number + 1}", options, default=None, key=widget)
    field, edited = f"criterion-{number}", decision == "edit"
    wording = _text("New wording", field, sheet, field=field, start=text) if edited else None

    def decided() -> Reviewed | None:
        choice = st.session_state[widget]
        return choice and Reviewed(criterion=number, decision=choice, text=wording() if wording else None)

    return decided
