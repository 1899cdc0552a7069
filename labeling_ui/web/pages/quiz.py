"""The quiz on a task's guidelines, by keyboard as the items are: who has not passed it gets no items."""

from __future__ import annotations

from typing import Any

import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.qualification import admit, feedback, is_admitted, tries_left
from labeling_ui.projects.people import Person
from labeling_ui.web import studio
from labeling_ui.web.answer_form import show_form
from labeling_ui.web.forms import quiz_choices, quiz_form
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


def passed(desk: Desk, person: Person) -> bool:
    """Whether the person may annotate; draws the quiz where not."""
    ledger = studio.current().ledger
    if is_admitted(ledger, desk.task, person):
        return True
    left = tries_left(ledger, desk.task, person)
    st.subheader("First, the guidelines", anchor=False)
    st.markdown(desk.task.guidelines)
    if left is not None and left <= 0:
        st.warning("You have no try left at this quiz; talk to your lead.")
        return False
    if left is not None:
        st.caption(f"{left} {'try' if left == 1 else 'tries'} left")

    def send(values: Any) -> None:
        try:
            result = admit(ledger, desk.task, person, quiz_choices(values))
        except RmkitError as error:
            st.session_state["quiz-said"] = [str(error)]
            return
        st.session_state["quiz-said"] = None if result.passed else feedback(desk.task, result)

    said = st.session_state.pop("quiz-said", None)
    for line in (said or [])[1:]:
        st.markdown(harmless(line))
    with st.container(key="answer-bar"):
        show_form(
            quiz_form(desk.task),
            id=f"quiz-{desk.task.id}",
            path=None,
            draft={},
            announcement="A quiz on the guidelines",
            refused=said[0] if said else None,
            send=send,
        )
    return False
