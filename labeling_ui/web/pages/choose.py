"""Which project a page is about."""

from __future__ import annotations

import streamlit as st

from labeling_ui.projects.members import takes_part
from labeling_ui.projects.project import broken_projects, projects
from labeling_ui.web import studio
from labeling_ui.web.texts import harmless
from rmkit.errors import DataError


def choose_project() -> str | None:
    """The project chosen in the sidebar, None (and a word on what to do) where there is none yet."""
    ledger, person = studio.current().ledger, st.session_state["person"]
    every = list(projects(ledger))
    if person.may("lead"):
        for name, reason in broken_projects(ledger).items():
            st.sidebar.warning(harmless(f"{name} is broken: {reason}"), icon=":material/link_off:")
    mine = [project for project in every if takes_part(ledger, project.name, project.task, person)]
    # Adjudication last: nobody lands there unless they mean to.
    names = [project.name for project in sorted(mine, key=lambda one: one.task.kind == "adjudication")]
    if every and not names:
        st.info("You are in no project yet; ask your lead.", icon=":material/lightbulb:")
        return None
    if not names:
        st.info(
            "There is no project yet. A lead makes one on the page New project, or: "
            "`rmkit label create NAME --data DATASET@VERSION`",
            icon=":material/lightbulb:",
        )
        return None
    many = len(names) > 1
    name = str(st.sidebar.selectbox("Project", names, key="project", bind="query-params")) if many else names[0]
    try:
        studio.current().desk(name)
    except (DataError, OSError) as error:
        st.error(harmless(f"{name} cannot be opened: {error}"))
        return None
    return name
