"""The quiz on a task's guidelines: who has not passed it gets no items."""

from __future__ import annotations

import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.qualification import admit, is_admitted
from labeling_ui.projects.people import Person
from labeling_ui.web import studio


def passed(desk: Desk, person: Person) -> bool:
    """Whether the person may annotate; draws the quiz where not."""
    ledger = studio.current().ledger
    if is_admitted(ledger, desk.task, person):
        return True
    st.subheader("First, the guidelines", anchor=False)
    st.markdown(desk.task.guidelines)
    with st.form(f"quiz-{desk.project}"):
        chosen: list[int | None] = []
        for number, question in enumerate(desk.task.quiz):
            choices = list(range(len(question.choices)))
            picked = st.radio(
                question.text,
                choices,
                index=None,
                key=f"quiz-{desk.project}-{number}",
                format_func=lambda choice, question=question: question.choices[choice],  # type: ignore[misc]
            )
            chosen.append(picked)
        if not st.form_submit_button("Send", type="primary"):
            return False
    result = admit(ledger, desk.task, person, chosen)
    if result.passed:
        st.rerun()
    st.error(f"{result.right} of {result.n} right, {result.needed} are needed. Read the guidelines again, then retry.")
    return False
