"""A model's opinion on the steps of an item, beside what the person said of them; there is none before the answer."""

from __future__ import annotations

import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.desk.opinions import Opinion
from labeling_ui.projects.people import Person
from labeling_ui.web.texts import harmless, show_steps


def show_opinion(desk: Desk, person: Person, hold: Lease, *, key: str, folded: bool = True) -> None:
    """One line of both, and all steps with the model's numbers; nothing where `Desk.opinion` says nothing."""
    opinion = desk.opinion(person, hold.id)
    if opinion is None:
        return
    labels = desk.answer(hold).get("step_labels") or ()
    yours = next((at for at, label in enumerate(labels) if label == 0), None)
    if opinion.unscored:
        st.caption(harmless(in_words(opinion)))
        return
    steps = desk.items[hold.item].steps
    notes = [_note(opinion, yours, at) for at in range(len(steps))]
    said = harmless(f"Your last answer: {_verdict(yours)}. {in_words(opinion)}")
    with st.expander(said, icon=":material/smart_toy:") if folded else st.container():
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
    return f"{who}: {_verdict(opinion.first_wrong)}"


def _verdict(first_wrong: int | None) -> str:
    return "all steps are right" if first_wrong is None else f"step {first_wrong + 1} is wrong"


def _note(opinion: Opinion, yours: int | None, at: int) -> str:
    """The model's number, and who calls the step the first wrong one."""
    whose = [who for who, wrong in (("you", yours), ("model", opinion.first_wrong)) if wrong == at]
    return f" · {opinion.steps[at]:.2f}" + (f" · first wrong step: {', '.join(whose)}" if whose else "")
