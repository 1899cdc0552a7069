"""The pages' entrance: who is it, and what may they see."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from labeling_ui.projects.people import Person
from labeling_ui.web import sign_in, studio
from labeling_ui.web.pages import (
    agreement_page,
    annotate,
    answers_page,
    datasets,
    explorer,
    known_page,
    models,
    my_work,
    new_project,
    people_page,
    playground_page,
    project_page,
    rubrics_page,
    settings,
    task_page,
)

ASSETS = Path(sign_in.__file__).parent / "assets"
ICON = ASSETS / "icon.png"  # a Material icon would be asked for at another host
STYLE, SCRIPT = ((ASSETS / f"studio.{kind}").read_text("utf-8") for kind in ("css", "js"))
SIDEBAR_PX = 230  # narrow, so that two responses fit beside it


def main() -> None:
    """Run by Streamlit on every interaction."""
    st.set_page_config(page_title="rmkit studio", page_icon=ICON, layout="wide", initial_sidebar_state=SIDEBAR_PX)
    st.html(f"<style>{STYLE}</style>")
    st.html(f"<script>{SCRIPT}</script>", unsafe_allow_javascript=True)
    person = sign_in.person(studio.current().ledger)
    if person is None:
        return
    st.session_state["person"] = person
    chosen = st.navigation(_pages(person), expanded=True)
    sign_in.way_out(person)
    chosen.run()


def _pages(person: Person) -> dict[str, list[st.Page]]:
    result = {
        "Work": [
            st.Page(annotate.page, title="Annotate", icon=":material/edit:", url_path="annotate", default=True),
            st.Page(my_work.page, title="My work", icon=":material/history:", url_path="my-work"),
        ]
    }
    if person.may("lead"):
        result["Lead"] = [
            st.Page(new_project.page, title="New project", icon=":material/add_circle:", url_path="new-project"),
            st.Page(project_page.page, title="Project", icon=":material/monitoring:", url_path="project"),
            st.Page(people_page.page, title="People", icon=":material/groups:", url_path="people"),
            st.Page(answers_page.page, title="Answers", icon=":material/fact_check:", url_path="answers"),
            st.Page(agreement_page.page, title="Agreement", icon=":material/handshake:", url_path="agreement"),
            st.Page(task_page.page, title="Task", icon=":material/tune:", url_path="task"),
            st.Page(known_page.page, title="Known items", icon=":material/verified:", url_path="known-items"),
            st.Page(playground_page.page, title="Playground", icon=":material/science:", url_path="playground"),
            st.Page(explorer.page, title="Data", icon=":material/search:", url_path="data"),
            st.Page(datasets.page, title="Datasets", icon=":material/database:", url_path="datasets"),
            st.Page(models.page, title="Models", icon=":material/leaderboard:", url_path="models"),
            st.Page(rubrics_page.page, title="Rubrics", icon=":material/checklist:", url_path="rubrics"),
        ]
    if person.may("admin"):
        result["Admin"] = [st.Page(settings.page, title="Settings", icon=":material/settings:", url_path="settings")]
    return result


if __name__ == "__main__":
    main()
