"""Which project a page is about."""

from __future__ import annotations

import streamlit as st

from labeling_ui.projects.project import projects
from labeling_ui.web import studio


def choose_project() -> str | None:
    """The project chosen in the sidebar, None (and a word on what to do) where there is none yet."""
    names = [project.name for project in projects(studio.current().ledger)]
    if not names:
        st.info(
            "There is no project yet. A lead makes one from a dataset version: "
            "`rmkit label create NAME --data DATASET@VERSION`",
            icon=":material/lightbulb:",
        )
        return None
    if len(names) == 1:
        return names[0]
    return str(st.sidebar.selectbox("Project", names, key="project", bind="query-params"))
