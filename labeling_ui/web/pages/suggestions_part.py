"""Suggestions of a project, for leads: whose they are, and what they do to answers."""

from __future__ import annotations

import streamlit as st

from labeling_ui.anchoring import Anchoring
from labeling_ui.desk.suggestions import Suggestions
from labeling_ui.learning.suggest import OF_MODEL, suggest_by_answers, suggest_by_model
from labeling_ui.projects.definition import SUGGESTED
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, projects
from labeling_ui.web import studio
from labeling_ui.web.pages.my_work import counted, percent
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError
from rmkit.models.artifact import aliases

MODEL, PROJECT = "model ", "answers of "


def make_suggestions(project: Project, person: Person) -> None:
    """Choose whose suggestions the project has; nothing for a kind that knows none."""
    kind = project.task.kind
    if not any(kind in kinds for kinds in SUGGESTED.values()):
        return
    ledger, stored = studio.current().ledger, Suggestions(project.folder)
    label = f"{len(stored)} items, {stored.source}" if len(stored) else "none"
    with st.expander(f"Suggestions: {harmless(label)}", icon=":material/assistant:"):
        mode = project.task.suggestions
        st.caption(f"Shown: {mode}. The task says when, under Answers. None is shown before a person's own choice.")
        sources = [f"{MODEL}{one.name}" for one in aliases.artifacts()] if kind in OF_MODEL else []
        others = (one for one in projects(ledger) if one.task.kind == kind and one.name != project.name)
        sources += [f"{PROJECT}{one.name}" for one in others]
        source = st.selectbox("Suggest", sources, index=None, placeholder="a model, or the answers of a project")
        if st.button("Make suggestions") and source:
            try:
                with st.spinner("Making suggestions"):
                    if source.startswith(MODEL):
                        n = suggest_by_model(ledger, project, person, source.removeprefix(MODEL))
                    else:
                        n = suggest_by_answers(ledger, project, person, source.removeprefix(PROJECT))
            except RmkitError as error:
                st.error(harmless(str(error)))
            else:
                st.success(f"{n} items have a suggestion.")


def show_effect(effect: Anchoring) -> None:
    """How far suggestions pull answers."""
    st.subheader("Suggestions", anchor=False)
    with st.container(horizontal=True):
        _metric("follow, drawn to see it", percent(effect.shown), counted(effect.shown))
        _metric("follow, not shown", percent(effect.hidden), counted(effect.hidden))
        has_both = effect.effect == effect.effect
        bounds = "interval {:+.0f} to {:+.0f}".format(*(100 * end for end in effect.interval)) if has_both else ""
        _metric("anchoring, points", f"{100 * effect.effect:+.0f}" if has_both else "–", bounds)
        if effect.moved.n:
            _metric("first chose otherwise, then followed", percent(effect.moved), counted(effect.moved))
        if effect.right.n:
            before = f"{counted(effect.right_first)} at first"
            _metric("known items right", percent(effect.right), before)
    st.caption("Who sees a suggestion is drawn for each item: the difference is what seeing it does, right or wrong.")


def _metric(label: str, value: str, below: str) -> None:
    with st.container(width=260):
        st.metric(label, value)
        st.caption(below)
