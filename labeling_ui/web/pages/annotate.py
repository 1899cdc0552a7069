"""Annotate: one item after the other, by keyboard.

A key runs this page's fragment once: its callback writes the answer, then the fragment draws the next item, which this
person holds already. One more is fetched after that, while the person reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.projects.people import Person, by_name
from labeling_ui.web import studio
from labeling_ui.web.activity import IDLE_S, watched
from labeling_ui.web.answer_form import PATH as DRAFTS
from labeling_ui.web.answer_form import show_form
from labeling_ui.web.evidence import votes_on
from labeling_ui.web.forms import NAMES, Form, choices, edited, form
from labeling_ui.web.opinion import show_opinion
from labeling_ui.web.pages import quiz
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.live import LivePart
from labeling_ui.web.pages.warehouse_view import reading
from labeling_ui.web.suggestion import prefilled, show_suggestion
from labeling_ui.web.texts import (
    harmless,
    show_conversation,
    show_differences,
    show_marked,
    show_responses,
    show_steps,
    show_turns,
)
from rmkit.errors import RmkitError

AHEAD = 2
PACE_OVER = 20  # answers


def page() -> None:
    """Run when the page is opened; keys run only the fragment."""
    name = choose_project()
    if name is None:
        return
    desk = studio.current().desk(name)
    if not quiz.passed(desk, st.session_state["person"]):
        return
    if desk.task.guidelines:
        with st.sidebar.expander("Guidelines", icon=":material/menu_book:"):
            st.markdown(desk.task.guidelines)
    _work(name)


@st.fragment
def _work(project: str) -> None:
    desk = studio.current().desk(project)
    try:
        person = _person()
        held = desk.open(person)
    except RmkitError as error:
        st.warning(str(error))
        return
    _progress(desk, person)
    for last in desk.history(person, limit=1):
        show_opinion(desk, person, last, key="last")
    if not held:
        st.success("Nothing left for you here. Thank you!")
        _undo(desk, person)
        return
    _item(desk, person, held[0])
    desk.open(person, ahead=AHEAD)


def _person() -> Person:
    """The person as their account is now: it may have ended, or have another role, since the page was opened."""
    return by_name(studio.current().ledger, st.session_state["person"].name)


def _progress(desk: Desk, person: Person) -> None:
    """One number, which rises with every answer: a second one would tell the known and repeated items apart."""
    n = desk.n_answered(person)
    st.caption(f"{n} answer{'' if n == 1 else 's'} by you{_pace(desk.history(person, limit=PACE_OVER))}")


def _pace(mine: list[Lease]) -> str:
    """Answers a minute over the last ones; nothing where they lie too close together or too far apart to say."""
    spent = mine[0].opened - mine[-1].opened if len(mine) > 2 else 0.0
    return f", {60 * (len(mine) - 1) / spent:.1f} a minute lately" if spent > 1 else ""


def _item(desk: Desk, person: Person, hold: Lease) -> None:
    task, item, shown = desk.task, desk.items[hold.item], desk.shown(hold)
    is_pair, key = len(shown) == 2, f"{hold.id}-{hold.revision}"
    exact_only = task.kind == "spans"  # a passage is a place in the text as it was written
    plain = exact_only or bool(st.session_state.get("is_plain"))
    draft = desk.draft(person, hold.id)
    _wall_s(hold)
    st.subheader(task.question, anchor=False)
    if returned := desk.returned(hold):
        st.info(harmless(f"Returned by {returned.lead}: {returned.comment}"), icon=":material/undo:")
    if task.warning and st.session_state.get("agreed") != hold.id:
        _warn(desk, hold)
        return
    live = LivePart(desk, person, hold) if task.kind == "live" else None
    if live:
        live.show(plain=plain)
    else:
        _show_item(desk, hold, plain=plain)
    draft = draft or prefilled(desk, hold)
    may_keep = show_suggestion(desk, hold)
    if change := edited(task, shown, draft):
        show_marked(*change, names=("before", "yours"))
    with st.container(key="answer-bar"):
        is_faulty = st.session_state.get("faulty") == hold.id
        own = _faults(task.bad_item_reasons) if is_faulty else live.form if live else form(task, item, shown)
        shown_key = live.key if live else f"{key}-again" if may_keep else key

        def send(values: Any) -> None:
            is_turn = live is not None and not is_faulty
            _refusable(lambda: live.send(values) if is_turn and live else _answer(desk, hold, own.answer(values)))

        show_form(
            own,
            id=f"{shown_key}-fault" if is_faulty else shown_key,  # no press is taken for the other form's
            path=DRAFTS.format(project=desk.project, id=hold.id),
            draft={} if is_faulty else draft,
            announcement=f"Item {desk.n_answered(person) + 1}. {task.question}",
            refused=st.session_state.pop("refused", None),
            work=watched(desk.project, hold),
            send=send,
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            _undo(desk, person)
            if may_keep:
                _keep(desk, hold)
            if live:
                _finish(desk, hold, live)
            if is_pair and not exact_only and not live:
                _switch("Differences", "is_compared", "D")
            if not exact_only:
                _switch("Exact text", "is_plain", "P")
            _skip(desk, hold, Answer(verdict="skip"))
            _switch("Something is wrong", "faulty", "W", value=hold.id)
            formats = "Formatted: press P for exact text"
            st.caption(f"{'Exact: every character as it was written' if plain else formats}; ? shows the keys")


def _show_item(desk: Desk, hold: Lease, *, plain: bool) -> None:
    """What is judged, and beside it what only some may see."""
    task, item, shown = desk.task, desk.items[hold.item], desk.shown(hold)
    if task.kind == "turns":
        show_turns((*item.prompt, *shown[0]), key="turns", plain=plain)
        return
    is_compared = len(shown) == 2 and st.session_state.get("is_compared") and task.kind != "spans"
    if shown and task.kind != "steps" and not is_compared:
        show_responses(shown, prompt=item.prompt, key="responses", plain=plain, whole=task.kind == "spans")
    else:
        show_conversation(item.prompt, key="prompt", plain=plain)
        if task.kind == "steps":
            show_steps(item.steps, key="steps", plain=plain)
        elif is_compared:
            show_differences(*shown, names=("A", "B"))
    if task.kind == "adjudication":
        _votes(desk, hold)


def _finish(desk: Desk, hold: Lease, live: LivePart) -> None:
    def finish() -> None:
        _refusable(lambda: _submit(desk, hold, live.finish()))

    icon, off = ":material/done_all:", not live.may_finish
    st.button("Finish", shortcut="F", key="finish", type="tertiary", icon=icon, disabled=off, on_click=finish)


def _faults(reasons: tuple[str, ...]) -> Form:
    """What may be wrong with an item."""
    said = [{"verdict": "bad_item", "reason": reason} for reason in reasons]
    return choices(reasons, said, question="What is wrong with it?")


def _votes(desk: Desk, hold: Lease) -> None:
    """What everyone has said so far; only adjudicators see it."""
    item = desk.items[hold.item]
    if item.reason:
        st.caption(item.reason)
    with reading() as connection:
        votes = votes_on(connection, item, hold.order)
    rows = [vote | {"preferred": " = ".join(NAMES[place] for place in vote["preferred"])} for vote in votes]
    if rows:
        st.dataframe(rows, hide_index=True)
    if item.evidence:
        with st.expander("What the models say", icon=":material/analytics:"):
            st.json(dict(item.evidence))


def _undo(desk: Desk, person: Person) -> None:
    last = desk.history(person, limit=1)

    def undo() -> None:
        _refusable(lambda: desk.undo(_person(), last[0].id))

    st.button(
        "Undo", shortcut="U", key="undo", type="tertiary", icon=":material/undo:", disabled=not last, on_click=undo
    )


def _switch(label: str, name: str, shortcut: str, *, value: Any = True) -> None:
    """A button that puts the value into the session, and takes it out again."""
    is_on, key = st.session_state.get(name) == value, f"{name}-switch"

    def turn() -> None:
        st.session_state[name] = None if is_on else value

    icon = ":material/check_box:" if is_on else ":material/check_box_outline_blank:"
    st.button(label, shortcut=shortcut, key=key, type="tertiary", icon=icon, on_click=turn)


def _skip(desk: Desk, hold: Lease, answer: Answer) -> None:
    def skip() -> None:
        _refusable(lambda: _submit(desk, hold, answer))

    icon = ":material/skip_next:"
    st.button("Skip", shortcut="S", key=f"skip-{hold.id}", type="tertiary", icon=icon, on_click=skip)


def _warn(desk: Desk, hold: Lease) -> None:
    """The warning, before the item is shown, and two ways on."""

    def agree() -> None:
        st.session_state["agreed"] = hold.id

    st.warning(desk.task.warning)
    with st.container(horizontal=True):
        st.button("Show it", shortcut="Enter", key=f"show-{hold.id}", type="primary", on_click=agree)
        _skip(desk, hold, Answer(verdict="skip", reason="warned content"))


def _answer(desk: Desk, hold: Lease, answer: Answer) -> None:
    """Submit it, unless something else is suggested that the person has not seen: then it is their first choice."""
    is_first = desk.first_choice(hold) is None
    if desk.choose_first(_person(), hold.id, answer) is None or not is_first or answer.verdict != "ok":
        _submit(desk, hold, answer)


def _keep(desk: Desk, hold: Lease) -> None:
    def keep() -> None:
        if first := desk.first_choice(hold):
            _refusable(lambda: _submit(desk, hold, first))

    icon = ":material/check:"
    st.button("Keep mine", shortcut="K", key=f"keep-{hold.id}", type="tertiary", icon=icon, on_click=keep)


def _submit(desk: Desk, hold: Lease, answer: Answer) -> None:
    wall_ms, active_ms = int(1000 * _wall_s(hold)), desk.activity(hold.id, idle_s=IDLE_S)
    desk.submit(_person(), hold.id, answer, active_ms=active_ms, wall_ms=wall_ms)


def _refusable(write: Callable[[], Any]) -> None:
    """Do it; what is refused is said beside the answer's controls."""
    try:
        write()
    except RmkitError as error:
        st.session_state["refused"] = str(error)


def _wall_s(hold: Lease) -> float:
    """Seconds since this item was first shown."""
    now, which = time.time(), f"{hold.id}-{hold.revision}"
    key, shown = st.session_state.get("clock", ("", now))
    if key != which:
        shown = now
    st.session_state["clock"] = which, shown
    return float(now - shown)
