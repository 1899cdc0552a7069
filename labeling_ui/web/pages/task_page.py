"""Task: words, answers, quiz and limits of a project, with what annotators will see and all versions; for leads."""

from __future__ import annotations

import streamlit as st

from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project
from labeling_ui.projects.revisions import Revision, revise_task, revisions
from labeling_ui.web import studio
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.suggestions_part import make_suggestions
from labeling_ui.web.task_form import edit_task, preview
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("Task", anchor=False)
    name = choose_project()
    if name is None:
        return
    here = studio.current()
    project, desk = here.project(name), here.desk(name)
    if done := st.session_state.pop("task-done", None):
        st.success(harmless(done))
    st.caption(f"{project.task.kind}, task {project.task.id[:8]}. A change is a new task; old answers keep theirs.")
    task = edit_task(project.task, key=f"task-{name}-{project.task.id[:8]}")
    if task is None:
        return
    if st.toggle("Show it as annotators will see it", key="task-preview"):
        number = int(st.number_input("Item", min_value=0, max_value=len(desk.items) - 1, step=1, key="task-item"))
        preview(task, desk.items[number])
    changed = task.id != project.task.id
    why = st.text_input("Why it changes", key="task-why") if changed else ""
    if st.button("Use the changed task", type="primary", icon=":material/save:", disabled=not changed):
        _revise(project, person, task, why)
    make_suggestions(project, person)
    _versions(project, person)


def _versions(project: Project, person: Person) -> None:
    known = revisions(studio.current().ledger, project.name)
    if not known:
        return
    with st.expander(f"Versions: {len(known)}", icon=":material/history:"):
        for at, one in enumerate(known):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.text(f"{one.task.id[:8]}, {one.time:%d %b %H.%M} by {one.lead}: {one.why or 'no reason given'}")
                if one.task.id != project.task.id and st.button(
                    "Use this one again", key=f"again-{at}", type="tertiary"
                ):
                    _revise(project, person, one.task, f"back to {one.task.id[:8]}")
            _changes(one, known[at + 1] if at + 1 < len(known) else None)


def _changes(one: Revision, before: Revision | None) -> None:
    if before is not None:
        names = [name for name in type(one.task).__slots__ if getattr(one.task, name) != getattr(before.task, name)]
        st.caption(harmless(f"changed: {', '.join(names)}"))


def _revise(project: Project, person: Person, task: TaskDefinition, why: str) -> None:
    try:
        studio.current().models.check(task)
        revised = revise_task(studio.current().ledger, project, person, task, why=why)
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.session_state["task-done"] = f"Task {revised.task.id[:8]} is in use."
    st.rerun()
