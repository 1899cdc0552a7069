"""A model's opinion on the steps of an item, beside what the person said of them; there is none before the answer."""

from __future__ import annotations

import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.desk.opinions import Opinion
from labeling_ui.projects.people import Person
from labeling_ui.web.answer_words import first_wrong, steps_in_words
from labeling_ui.web.texts import harmless, show_steps


def show_opinion(desk: Desk, person: Person, hold: Lease, *, key: str, folded: bool = True) -> None:
    """One line of both, and all steps with the model's numbers; nothing where `Desk.opinion` says nothing."""
    opinion = desk.opinion(person, hold.id)
    if opinion is None:
        return
    yours = first_wrong(desk.answer(hold).get("step_labels") or ())
    if opinion.unscored:
        st.caption(harmless(in_words(opinion)))
        return
    steps = desk.items[hold.item].steps
    notes = [_note(opinion, yours, at) for at in range(len(steps))]
    title = harmless(f"Your last answer: {steps_in_words(yours)}. {in_words(opinion)}")
    with st.expander(title, icon=":material/smart_toy:") if folded else st.container():
        if not folded:
            st.caption(harmless(in_words(opinion)))
        show_steps(steps, key=f"opinion-{key}", notes=notes)


def in_words(opinion: Opinion) -> str:
    """`prm 3f2a91c0: step 2 is wrong`."""
    who = f"{opinion.model} {opinion.fingerprint[:8]}"
    if opinion.unscored:
        return f"{who} could not score it: {opinion.unscored}"
    if opinion.scale != "probability":
        return f"{who} gave each step a number"
    return f"{who}: {steps_in_words(opinion.first_wrong)}"


def _note(opinion: Opinion, yours: int | None, at: int) -> str:
    """The model's number, and who calls the step the first wrong one."""
    whose = [who for who, wrong in (("you", yours), ("model", opinion.first_wrong)) if wrong == at]
    return f" · {opinion.steps[at]:.2f}" + (f" · first wrong step: {', '.join(whose)}" if whose else "")
