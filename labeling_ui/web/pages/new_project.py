"""New project: from a dataset version or a file that is uploaded here, with its task; for leads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from data_pipelines.ingest.command import slug
from data_pipelines.ingest.reading import Reading
from data_pipelines.sources.form import ROLES
from labeling_ui.desk.items import Items
from labeling_ui.projects.definition import TaskDefinition, shipped, shipped_definition
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, create_project
from labeling_ui.projects.upload import MAX_MB, SUFFIXES, Look, keep_upload, look, store_upload
from labeling_ui.web import studio
from labeling_ui.web.pages.warehouse_view import reading
from labeling_ui.web.task_form import edit_task, preview, sample_item
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError
from warehouse.versions.history import all_datasets
from warehouse.write.units import RATER_KINDS

UPLOAD, VERSION = "Upload a file", "Take a dataset version"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows come from: a version, or a file with how it is read and whether its doubts are put up with."""

    ref: str | None = None
    path: Path | None = None
    reading: Reading | None = None
    dataset: str | None = None
    in_spite: bool = False


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("New project", anchor=False)
    if done := st.session_state.pop("new-project-done", None):
        st.success(harmless(done))
    st.subheader("1. Rows", anchor=False)
    way = st.segmented_control("Rows from", [UPLOAD, VERSION], default=UPLOAD, required=True, key="rows-from")
    source = _upload(person) if way == UPLOAD else _version()
    st.subheader("2. Task", anchor=False)
    kinds = list(shipped())
    kind = str(st.selectbox("Kind", kinds, index=kinds.index("pairwise"), key="new-kind"))
    with st.expander("Words, answers, quiz, limits", icon=":material/tune:"):
        task = edit_task(shipped_definition(kind), key=f"new-{kind}")
    if task is not None and st.toggle("Show it as annotators will see it", key="new-preview"):
        preview(task, sample_item(task))
    st.subheader("3. Name", anchor=False)
    name = st.text_input("Name of the project", value=_suggested(source), key=f"new-name-{_suggested(source)}")
    if st.button("Create the project", type="primary", icon=":material/add:", disabled=source is None or task is None):
        assert source is not None
        assert task is not None
        _create(person, source, replace(task, name=name or task.name), name.strip())


def _suggested(source: Source | None) -> str:
    if source is None:
        return ""
    return source.dataset or str(source.ref).partition("@")[0]


def _version() -> Source | None:
    with reading() as connection:
        refs = [str(one["name"]) for one in all_datasets(connection)]
    if not refs:
        st.info("There is no dataset yet. Upload a file.", icon=":material/lightbulb:")
        return None
    ref = st.selectbox(
        "Dataset", refs, key="new-ref", accept_new_options=True, help="NAME takes the newest, or NAME@vN"
    )
    return Source(ref=ref) if ref else None


def _upload(person: Person) -> Source | None:
    file = st.file_uploader(f"Votes, pairs, rankings, scores (up to {MAX_MB} MB)", type=list(SUFFIXES), key="new-file")
    if file is None:
        st.caption(f"{', '.join(SUFFIXES)}. What the file would be read as is shown before anything is stored.")
        return None
    try:
        path = _kept(person, file)
    except RmkitError as error:
        st.error(harmless(str(error)))
        return None
    plain = _looked(path, Reading(), "plain")
    own = _reading(path, plain)
    result = plain if own == Reading() else _looked(path, own, "own")
    _show(result)
    if result.result is None:
        return None
    dataset = slug(st.text_input("Stored as dataset", slug(path.name), key=f"new-dataset-{path.parent.name}"))
    in_spite = bool(result.doubts) and st.checkbox("Store it in spite of the doubts", key=f"spite-{path.parent.name}")
    if result.doubts and not in_spite:
        return None
    return Source(path=path, reading=own, dataset=dataset, in_spite=in_spite)


def _kept(person: Person, file: Any) -> Path:
    """The file on disk; written once, not at every run."""
    known = st.session_state.get("new-kept")
    if known is None or known[0] != file.file_id:
        known = (file.file_id, keep_upload(person, file.name, file.getvalue()))
        st.session_state["new-kept"] = known
    return Path(known[1])


def _looked(path: Path, reading: Reading, slot: str) -> Look:
    known = st.session_state.get(f"new-look-{slot}")
    if known is None or known[:2] != (path, reading):
        known = (path, reading, look(path, reading))
        st.session_state[f"new-look-{slot}"] = known
    return known[2]


def _reading(path: Path, plain: Look) -> Reading:
    """How the lead says that the file is read; what they leave alone is as it was detected."""
    key = path.parent.name
    detected = {one.role: one.column for one in plain.result.reading.columns} if plain.result else {}
    of_column = {column: role for role, column in detected.items() if role in ROLES}
    unsure = plain.result is None or bool(plain.doubts)
    with st.expander("How it is read", expanded=unsure, icon=":material/table_chart:"):
        chosen = dict(of_column)
        cells = st.columns(3)
        for at, (column, sample) in enumerate(plain.columns.items()):
            before = of_column.get(column, "")
            role = cells[at % 3].selectbox(
                column,
                ["", *ROLES],
                index=["", *ROLES].index(before),
                key=f"role-{key}-{column}",
                format_func=lambda role: role or "not used",
                help=harmless(sample) or None,
            )
            chosen.pop(column, None)
            if role:
                chosen[column] = role
        values = st.text_input(
            "What labels mean", key=f"values-{key}", placeholder="1=a,2=b,0=tie", help="Value=meaning, commas between"
        )
        kind = st.selectbox(
            "The raters are", ["", *RATER_KINDS], key=f"kind-{key}", format_func=lambda k: k or "as it says"
        )
        mark = st.text_input("Mark between prompt and reply in one text", key=f"mark-{key}")
        encoding = st.text_input("Encoding", key=f"encoding-{key}", placeholder="UTF-8")
        sheet = st.text_input("Sheet of a workbook", key=f"sheet-{key}")
    roles = {role: column for column, role in chosen.items()} if chosen != of_column else {}
    options = {"values": values, "rater_kind": kind, "split_text": mark, "encoding": encoding, "sheet": sheet}
    return Reading(roles=roles, **{name: value for name, value in options.items() if value})  # type: ignore[arg-type]


def _show(result: Look) -> None:
    """The table of `rmkit ingest --dry-run`."""
    if result.result is None:
        st.error(harmless(f"{result.problem}. Say how it is read, above."))
        return
    tried = result.result
    st.dataframe(
        [{"column": c.column, "became": c.role, "why": c.why, "sample": c.sample} for c in tried.reading.columns],
        hide_index=True,
    )
    units = ", ".join(f"{n} {kind}" for kind, n in sorted(tried.units.items())) or "none"
    labels = ", ".join(f"{name} {n}" for name, n in sorted(tried.labels.items())) or "none"
    st.caption(
        harmless(
            f"form {tried.reading.form}; of the first {tried.rows} rows {tried.rejected} are rejected; "
            f"units: {units}; labels: {labels}; {tried.n_raters} raters"
        )
    )
    for note in tried.reading.notes:
        st.caption(harmless(f"note: {note}"))
    for reason, n in list(tried.reasons.items())[:5]:
        st.caption(harmless(f"{n} rejected: {reason}"))
    for doubt in tried.doubts:
        st.warning(harmless(f"Doubt: {doubt}"))


def _create(person: Person, source: Source, task: TaskDefinition, name: str) -> None:
    try:
        studio.current().models.check(task)
        ref = source.ref or _stored(person, source)
        project = create_project(studio.current().ledger, name, task=task, data=ref, author=person.name)
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.session_state["project"] = name
    st.session_state["new-project-done"] = _summary(project)
    st.rerun()


def _stored(person: Person, source: Source) -> str:
    assert source.path is not None
    assert source.reading is not None
    report = store_upload(person, source.path, source.reading, dataset=source.dataset, in_spite=source.in_spite)
    assert report.version is not None
    return report.version.ref


def _summary(project: Project) -> str:
    left_out = "".join(f"; {n} rows left out: {reason}" for reason, n in project.skipped.items())
    n = len(Items(project.folder))
    return f"Project {project.name}: {n} items from {project.data}{left_out}. Next: invite people, choose known items."
