"""Editing a task's definition on a page, and seeing it as an annotator will."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_args

import streamlit as st

from labeling_ui.desk.items import Item
from labeling_ui.desk.served_models import HOW
from labeling_ui.projects.definition import SUGGESTED, QuizFeedback, TaskDefinition, parse_definition
from labeling_ui.web import studio
from labeling_ui.web.answer_form import preview_form
from labeling_ui.web.forms import form
from labeling_ui.web.texts import harmless, show_conversation, show_responses, show_steps, show_turns
from rmkit.errors import ConfigError, RmkitError
from rmkit.ids import canonical_json
from rmkit.types import Message

_FEEDBACK = {
    "count": "how many were right",
    "wrong": "which ones were wrong",
    "answers": "the right answers too",
}
_SUGGESTIONS = {
    "off": "off",
    "after": "after a person's own first choice",
    "prefilled": "in the field from the beginning",
}
_ASPECT = "name | question | lowest | highest | what the lowest means | what the highest means"


def edit_task(task: TaskDefinition, *, key: str) -> TaskDefinition | None:
    """The task as the widgets say; None, with the reason on the page, where that is no task."""
    words, answers, quiz, limits = st.tabs(["Words", "Answers", "Quiz", "Limits"])
    try:
        with words:
            values = _words(task, key)
        with answers:
            values |= _answers(task, key)
        with quiz:
            values |= _quiz(task, key)
        with limits:
            values |= _limits(task, key)
        if task.kind == "live":
            _require_two(values["models"], task)
        return parse_definition({**asdict(task), **values}, where="this task")
    except RmkitError as error:
        st.error(harmless(str(error)))
        return None


def preview(task: TaskDefinition, item: Item | None) -> None:
    """The page of an annotator with this item; its controls do nothing."""
    with st.container(border=True):
        st.subheader(task.question, anchor=False)
        if task.warning:
            st.warning(task.warning)
        if item is None:
            st.caption("No item yet: the responses stand here.")
            return
        if task.kind == "turns" and item.responses:
            show_turns((*item.prompt, *item.responses[0]), key="preview-turns")
        else:
            show_conversation(item.prompt, key="preview-prompt")
        if task.kind == "steps":
            show_steps(item.steps, key="preview-steps")
        elif item.responses and task.kind != "turns":
            show_responses(item.responses, key="preview-responses")
        try:
            preview_form(form(task, item, item.responses), id=task.id)
        except (RmkitError, IndexError, ValueError) as error:
            st.error(harmless(f"this item cannot be shown: {error}"))


def _words(task: TaskDefinition, key: str) -> dict[str, Any]:
    text: Callable[..., str] = st.text_input
    return {
        "title": text("Title", task.title, key=f"{key}-title"),
        "question": text("Question", task.question, key=f"{key}-question"),
        "guidelines": st.text_area("Guidelines (Markdown)", task.guidelines, key=f"{key}-guidelines", height=260),
        "warning": text("Warning before each item (empty: none)", task.warning, key=f"{key}-warning"),
    }


def _answers(task: TaskDefinition, key: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if task.kind in ("pairwise", "adjudication"):
        values["strengths"] = _words_of("Strengths, from slightly to much better", task.strengths, f"{key}-strengths")
        values["allow_tie"] = st.toggle("A tie may be chosen", task.allow_tie, key=f"{key}-tie")
    if task.kind == "ranking":
        values["top_k"] = _whole("How many must be ranked (0: all)", task.top_k, f"{key}-top", low=0)
    if task.kind == "ratings":
        lines = "\n".join(" | ".join(map(str, _aspect_cells(asdict(aspect)))) for aspect in task.aspects)
        text = st.text_area(f"Aspects, one a line: {_ASPECT}", lines, key=f"{key}-aspects")
        values["aspects"] = [_aspect(line) for line in text.splitlines() if line.strip()]
    if task.kind == "reaction":
        values["reactions"] = _words_of("Reactions, from bad to good", task.reactions, f"{key}-reactions")
    if task.kind == "turns":
        values["grades"] = _words_of("Grades of a turn, from the worst to the best", task.grades, f"{key}-grades")
    if task.kind == "live":
        served = studio.current().models.names
        before = [name for name in task.models if name in served]
        values["models"] = st.multiselect("Two served models", served, before, key=f"{key}-models", max_selections=2)
    if task.kind == "spans":
        values["span_labels"] = _words_of("Labels of passages", task.span_labels, f"{key}-spans")
    if modes := [mode for mode, kinds in SUGGESTED.items() if task.kind in kinds]:
        options = ["off", *modes]
        at = options.index(task.suggestions)
        values["suggestions"] = st.selectbox(
            "Suggestions", options, at, format_func=_SUGGESTIONS.__getitem__, key=f"{key}-suggest"
        )
        if values["suggestions"] != "off":
            label = "Shown on so many percent of the items that have one; the rest measures what they do"
            values["suggestion_share"] = _percent(label, task.suggestion_share, f"{key}-suggest-share", high=100)
    values["bad_item_reasons"] = _words_of("What may be wrong with an item", task.bad_item_reasons, f"{key}-bad")
    values["ask_rationale"] = st.toggle("Ask why", task.ask_rationale, key=f"{key}-why")
    return values


def _require_two(chosen: list[str], task: TaskDefinition) -> None:
    if len(chosen) == 2:
        return
    served = studio.current().models.names
    gone = [name for name in task.models if name not in served]
    raise ConfigError(
        f"A live chat is with two models, and {len(chosen)} of the served ones are chosen."
        + (f" Not served any more: {', '.join(gone)}." if gone else "")
        + ("" if len(served) > 1 else f" Fewer than two are served here: ask whoever starts it ({HOW}).")
    )


def _aspect_cells(aspect: Mapping[str, Any]) -> list[Any]:
    return [aspect["name"], aspect["question"], aspect["low"], aspect["high"], *aspect["anchors"]]


def _aspect(line: str) -> dict[str, Any]:
    name, question, low, high, *anchors = [*map(str.strip, line.split("|")), "", "", ""]
    try:
        bounds = {"low": int(low or 1), "high": int(high or 5)}
    except ValueError as error:
        raise ConfigError(f"aspect {name}: lowest and highest are whole numbers, got {low!r} and {high!r}") from error
    return {"name": name, "question": question, **bounds, "anchors": [one for one in anchors if one]}


def _quiz(task: TaskDefinition, key: str) -> dict[str, Any]:
    """Questions that must be passed before the first item; one without a text is left out."""
    number = _whole("Questions (0: no quiz)", len(task.quiz), f"{key}-n-quiz", low=0, high=20)
    questions = []
    for at in range(number):
        before = task.quiz[at] if at < len(task.quiz) else None
        with st.container(border=True):
            text = st.text_input(f"Question {at + 1}", before.text if before else "", key=f"{key}-quiz-{at}")
            lines = st.text_area(
                "Choices, one a line", "\n".join(before.choices if before else ()), key=f"{key}-choices-{at}", height=96
            )
            choices = [line.strip() for line in lines.splitlines() if line.strip()]
            first = min(before.answer if before else 0, max(len(choices) - 1, 0))
            right = st.selectbox("Right is", choices, index=first if choices else None, key=f"{key}-right-{at}")
        if text.strip() and right is not None:
            questions.append({"text": text, "choices": choices, "answer": choices.index(right)})
    share = _percent("Right answers needed, percent", task.quiz_pass, f"{key}-pass", high=100) if number else 0.8
    values: dict[str, Any] = {"quiz": questions, "quiz_pass": share}
    if number:
        values["quiz_tries"] = _whole("Tries (0: without end)", task.quiz_tries, f"{key}-tries", low=0, high=100)
        kinds = get_args(QuizFeedback)
        at = kinds.index(task.quiz_feedback)
        values["quiz_feedback"] = st.selectbox(
            "After a try, say", kinds, at, format_func=_FEEDBACK.__getitem__, key=f"{key}-feedback"
        )
    return values


def _limits(task: TaskDefinition, key: str) -> dict[str, Any]:
    return {
        "overlap": _whole("People who judge each item", task.overlap, f"{key}-overlap", low=1, high=50),
        "gold_share": _percent("Known items among what a person sees, percent", task.gold_share, f"{key}-gold"),
        "repeat_share": _percent("Own items seen again, percent", task.repeat_share, f"{key}-repeat"),
        "lease_s": 60
        * _whole("Minutes that an opened item is held", max(task.lease_s // 60, 1), f"{key}-lease", low=1),
        "max_items": _whole("Items a person may answer (0: no limit)", task.max_items, f"{key}-max", low=0),
    }


def _whole(label: str, value: int, key: str, *, low: int, high: int = 1_000_000) -> int:
    return int(st.number_input(label, min_value=low, max_value=high, value=value, step=1, key=key))


def _percent(label: str, share: float, key: str, *, high: int = 50) -> float:
    return _whole(label, round(100 * share), key, low=0, high=high) / 100


def _words_of(label: str, words: tuple[str, ...], key: str) -> list[str]:
    text = st.text_input(f"{label} (with commas between)", ", ".join(words), key=key)
    return [word.strip() for word in text.split(",") if word.strip()]


def sample_item(task: TaskDefinition) -> Item:
    """An item of the task's kind that belongs to no data, for a preview before there is any."""
    replies = ("Lima. It lies on the coast of the Pacific.", "Cusco is the capital of Peru.", "I do not know.")
    n = {"pairwise": 2, "adjudication": 2, "edit": 2, "ranking": 3}.get(task.kind, 1)
    text = "Lima has ten million people.\n\nPeru has 34 million.\n\nSo a third of Peru lives there."
    shown = (text,) if task.kind == "steps" else replies[:n]
    ends = (28, 50, len(text)) if task.kind == "steps" else ()
    has_rubric = task.kind in ("rubric", "rubric_review")
    rubric = canonical_json([{"criterion": "Names the capital", "weight": 1.0}]) if has_rubric else None
    prompt = (Message("user", "What is the capital of Peru?"),)
    responses = tuple((Message("assistant", reply),) for reply in shown)
    return Item(0, "", "", prompt, responses, ends, rubric, None, None, {})
