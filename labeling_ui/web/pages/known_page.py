"""Known items: those whose answer is known, shown among the others to measure people; chosen here or imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow.compute as pc
import streamlit as st

from data_pipelines.ingest.reading import Reading
from labeling_ui.desk.desk import Desk
from labeling_ui.desk.items import Item
from labeling_ui.projects.known import KnownAdded, add_known, import_known, open_items
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project
from labeling_ui.projects.upload import MAX_MB, SUFFIXES, keep_upload, look, store_upload
from labeling_ui.web import studio
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.warehouse_view import reading
from labeling_ui.web.texts import harmless, show_conversation, show_responses
from rmkit.errors import RmkitError
from rmkit.ids import canonical_json
from warehouse.versions.checkout import checkout
from warehouse.versions.history import all_datasets
from warehouse.versions.versions import resolve

PAGE_ITEMS = 5
KINDS = ("pairwise", "adjudication", "steps")


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("Known items", anchor=False)
    name = choose_project()
    if name is None:
        return
    here = studio.current()
    project, desk = here.project(name), here.desk(name)
    if done := st.session_state.pop("known-done", None):
        st.success(harmless(done))
    share = project.task.gold_share
    st.caption(
        f"{len(desk.items.with_gold())} known items; {100 * share:.0f}% of what a person sees is one of them"
        + ("" if share else " (set a share on the page Task, under Limits)")
    )
    if project.task.kind not in KINDS:
        st.info(f"Known answers are for {', '.join(KINDS)}; this is a {project.task.kind} project.")
        return
    _choose(project, desk, person)
    _import(project, person)


def _choose(project: Project, desk: Desk, person: Person) -> None:
    st.subheader("Choose rows", anchor=False)
    labels = _labels(project.data, project.digest)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input("Prompt contains", key="known-text")
        agreed = st.toggle("Only where all votes of the data agree", key="known-agreed")
        number = int(st.number_input("Page", min_value=1, value=1, step=1, key="known-page", width=160))
    numbers = open_items(studio.current().ledger, project, desk.items)
    if text:
        matches = pc.match_substring(desk.items.column("prompt"), canonical_json(text)[1:-1], ignore_case=True)
        numbers = np.intersect1d(numbers, pc.indices_nonzero(matches).to_numpy())
    if agreed:
        units = pl.Series(desk.items.column("unit")).cast(pl.String)
        numbers = numbers[units[numbers].is_in(_agreed(labels).implode()).to_numpy()]
    st.caption(f"{len(numbers):,} items that nobody has opened yet")
    items = [desk.items[one] for one in numbers[(number - 1) * PAGE_ITEMS : number * PAGE_ITEMS].tolist()]
    rows = labels.filter(pl.col("unit").is_in([item.unit for item in items])).to_dicts()
    said = {row["unit"]: _said(row) for row in rows}
    for item in items:
        _candidate(project, person, item, said.get(item.unit))


def _candidate(project: Project, person: Person, item: Item, label: str | None) -> None:
    """One item with a button for each answer it may have."""
    with st.container(border=True):
        st.caption(f"item {item.number}" + (f"; the data says: {label}" if label else ""))
        show_conversation(item.prompt, key=f"known-prompt-{item.number}")
        if item.step_ends:
            for at, step in enumerate(item.steps, start=1):
                st.text(f"{at}. {step}")
        else:
            show_responses(item.responses, key=f"known-responses-{item.number}")
        with st.container(horizontal=True):
            for at, (text, answer) in enumerate(_choices(project, item)):
                if st.button(text, key=f"known-{item.number}-{at}"):
                    _add(partial(add_known, studio.current().ledger, project, person, {item.number: answer}))


def _choices(project: Project, item: Item) -> list[tuple[str, dict[str, list[Any]]]]:
    if project.task.kind == "steps":
        n = len(item.step_ends)
        wrong = [
            (f"{at + 1} is wrong first", {"step_labels": [1.0] * at + [0.0] + [None] * (n - at - 1)}) for at in range(n)
        ]
        return [("all are right", {"step_labels": [1.0] * n}), *wrong]
    tie = [("a tie is right", {"ranks": [0, 0]})] if project.task.allow_tie else []
    return [("A is right", {"ranks": [0, 1]}), ("B is right", {"ranks": [1, 0]}), *tie]


@lru_cache(maxsize=2)
def _labels(data: str, digest: str) -> pl.DataFrame:
    """What a dataset version says of each unit. One frame for all sessions: rows as dictionaries would cost each of
    them hundreds of bytes a row for as long as it lasts."""
    with reading() as connection:
        columns = ("unit", "p", "ranks", "n_votes", "step_labels")
        return pl.DataFrame(pl.from_arrow(checkout(connection, resolve(connection, data), columns=columns)))


def _agreed(labels: pl.DataFrame) -> pl.Series:
    """The units on whose pair two or more votes agree."""
    is_pair = (pl.col("p").list.len() == 2) & (pl.col("step_labels").list.len().fill_null(0) == 0)
    return labels.filter(is_pair & (pl.col("n_votes") >= 2) & (pl.col("p").list.max() > 1 - 1e-9))["unit"]


def _said(row: Mapping[str, Any]) -> str | None:
    if row["step_labels"]:
        wrong = next((at for at, one in enumerate(row["step_labels"], start=1) if one == 0), None)
        return "all steps right" if wrong is None else f"step {wrong} wrong first"
    if not row["p"] or len(row["p"]) != 2:
        return None
    side = "a tie" if row["p"][0] == row["p"][1] else "A" if row["p"][0] > row["p"][1] else "B"
    return f"{side} ({row['n_votes']} votes, {100 * max(row['p']):.0f}% for it)"


def _import(project: Project, person: Person) -> None:
    """The labels of other data as known answers."""
    with st.expander("Import known answers", icon=":material/upload:"):
        with reading() as connection:
            names = [str(one["name"]) for one in all_datasets(connection)]
        ref = st.selectbox("Of a dataset", names, index=None, accept_new_options=True, key="known-ref")
        file = st.file_uploader(f"Or of a file (up to {MAX_MB} MB)", type=list(SUFFIXES), key="known-file")
        if st.button("Import", disabled=not ref and file is None):
            _add(lambda: import_known(studio.current().ledger, project, person, ref or _stored(project, person, file)))


def _stored(project: Project, person: Person, file: Any) -> str:
    path = keep_upload(person, file.name, file.getvalue())
    if problem := look(path, Reading()).problem:
        raise RmkitError(f"{problem}. Read it on the page New project, where you can say how; then import it here")
    version = store_upload(person, path, Reading(), dataset=f"{project.name}-known").version
    assert version is not None
    return version.ref


def _add(add: Callable[[], KnownAdded]) -> None:
    try:
        added = add()
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    left_out = "".join(f"; {n} left out: {why}" for why, n in added.left_out.items())
    st.session_state["known-done"] = f"{added.items} new known items{left_out}"
    st.rerun()
