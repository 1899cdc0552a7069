"""Project: how far it is, how fast it goes, what comes next, and its labels as a version or as files; for leads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.learning.from_answers import Replay, order_by_answers, replay, strategy_in_use
from labeling_ui.learning.strategies import LEARNING
from labeling_ui.projects.export import answers_jsonl, export_zip
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.pace import pace
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, add_queued
from labeling_ui.web import studio
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.webhooks_part import show_webhooks
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError
from warehouse.out.forms import FORMS

ANSWERS = "answers, one JSON object a line"


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    name = choose_project()
    if name is None:
        st.header("Project", anchor=False)
        return
    here = studio.current()
    project, desk, work = here.project(name), here.desk(name), here.work(name).frame()
    st.header(name, anchor=False)
    task = project.task
    st.caption(f"{harmless(task.title)} · {project.data} · {task.overlap} people an item · task {task.id[:8]}")
    for reason, n in project.skipped.items():
        st.caption(harmless(f"{n} rows of the data are left out: {reason}"))
    _progress(desk, work)
    if work.is_empty():
        st.info("No answers yet. Invite people on the page People.", icon=":material/lightbulb:")
    else:
        _set_aside(work)
        if task.kind == "pairwise":
            _queue(project, desk, person, work)
    _labels(project, desk, person, work)
    show_webhooks(name, person)


def _progress(desk: Desk, work: pl.DataFrame) -> None:
    done = desk.progress()
    st.progress(min(done["answered"] / max(done["wanted"], 1), 1.0))
    ahead = pace(work, left=max(done["wanted"] - done["answered"], 0))
    with st.container(horizontal=True):
        st.metric(f"answers of {done['wanted']}", done["answered"], width=130)
        st.metric(f"complete of {done['items']}", done["complete"], width=130)
        st.metric("at work now", done["at_work"], width=110)
        st.metric("known, repeated", done["gold_and_repeats"], width=130)
        help = "as many people as should answer it called it a bad item"
        st.metric("set aside", done["set_aside"], width=110, help=help)
        st.metric("hours of work left", _figure(ahead.work_h), width=150, help="at the median of active time an answer")
        help = f"at {ahead.per_day:.0f} answers a day, as over the last seven days"
        st.metric("days left", _figure(ahead.days), width=110, help=help)
    if work.height > 1:
        _pace(work)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _pace(work: pl.DataFrame) -> None:
    """Answers of each person, in steps that suit how long the work has gone on; nothing before the second step."""
    spent: Any = work["time"].max() - work["time"].min()  # type: ignore[operator]
    every, step = _steps(spent / timedelta(hours=1))
    counts = work.group_by(pl.col("time").dt.truncate(every), "rater").agg(answers=pl.len())
    if counts["time"].n_unique() < 2:
        return
    time = alt.X("time:T", title=None, timeUnit=step)
    who = alt.Color("rater:N", title=None)
    chart = alt.Chart(counts).mark_bar().encode(x=time, y=alt.Y("sum(answers):Q", title="answers"), color=who)
    st.altair_chart(chart, height=200)


def _steps(hours: float) -> tuple[str, alt.TimeUnitParams]:
    """How finely to count, and the bars; the browser sums hours into days, as it knows where days begin."""
    if hours < 4:
        return "5m", alt.TimeUnitParams(unit="yearmonthdatehoursminutes", step=5)
    if hours < 100:
        return "1h", alt.TimeUnitParams(unit="yearmonthdatehours")
    return "1h", alt.TimeUnitParams(unit="yearmonthdate")


def _set_aside(work: pl.DataFrame) -> None:
    bad = work.filter(pl.col("verdict") == "bad_item")
    if not bad.is_empty():
        st.subheader("Called bad items", anchor=False)
        reasons = (
            bad.group_by("reason")
            .agg(times=pl.len(), items=pl.col("item").unique().sort())
            .sort("times", descending=True)
        )
        st.dataframe(reasons, hide_index=True)


def _queue(project: Project, desk: Desk, person: Person, work: pl.DataFrame) -> None:
    """Which items come next, and what another order would have gained on the answers so far."""
    ledger = studio.current().ledger
    with st.expander(f"What comes next: {strategy_in_use(ledger, project.name)}", icon=":material/sort:"):
        if st.button("Try the strategies on the answers so far"):
            try:
                with st.spinner("Replaying the answers with each strategy"):
                    st.session_state[f"replay-{project.name}"] = replay(desk.items, work)
            except RmkitError as error:
                st.error(harmless(str(error)))
        if tried := st.session_state.get(f"replay-{project.name}"):
            _replayed(tried)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            strategy = st.selectbox("Order the rest by", ["random", *LEARNING])
            if st.button("Use it"):
                try:
                    with st.spinner("Ordering what is left"):
                        done = order_by_answers(ledger, project, person, work, strategy)
                except RmkitError as error:
                    st.error(harmless(str(error)))
                else:
                    st.success(f"{strategy}: {done['items']} items ordered, from the next item on.")


def _replayed(tried: Replay) -> None:
    rows = [
        {
            "strategy": row["strategy"],
            "right at the end, percent": round(row["final_percent"], 1),
            "gain over random, points": round(row["gain_points"], 2),
            "interval": "" if row["strategy"] == "random" else "{:+.2f} to {:+.2f}".format(*row["gain_interval"]),
        }
        for row in tried.rows
    ]
    st.dataframe(rows, hide_index=True)
    st.caption(harmless(f"{tried.pairs} pairs with an answer; {tried.verdict}"))


def _labels(project: Project, desk: Desk, person: Person, work: pl.DataFrame) -> None:
    st.subheader("Labels", anchor=False)
    own = f"{project.name}-labels"
    with st.form("commit"):
        dataset = st.text_input("Dataset", own)
        merge = st.toggle("With all other rows of the project's data")
        if st.form_submit_button("Make the labels a dataset version", type="primary", icon=":material/commit:"):
            _commit(project, person, dataset.strip() or own, merge=merge)
    _take_out(project, desk, person, work)
    if st.button("Take in queued findings", icon=":material/move_to_inbox:"):
        person.require("lead", "take in findings")
        added = add_queued(studio.current().ledger, project)
        st.info(f"{added.items} new items" + "".join(f"; {n} left out: {why}" for why, n in added.left_out.items()))


def _commit(project: Project, person: Person, dataset: str, *, merge: bool) -> None:
    try:
        version = commit_labels(studio.current().ledger, project, person, dataset=dataset, merge=merge).version
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.session_state[f"labels-{project.name}"] = version.ref
    st.success(f"{version.ref}: {version.n_rows} rows. Next: `rmkit train frozen --data {version.ref}`")


def _take_out(project: Project, desk: Desk, person: Person, work: pl.DataFrame) -> None:
    """Files are made when asked for: a version may be large."""
    with st.expander("Take out as files", icon=":material/download:"):
        ref = st.text_input("Version", st.session_state.get(f"labels-{project.name}", f"{project.name}-labels"))
        form = st.selectbox("Form", [ANSWERS, *FORMS])
        if st.button("Prepare the file"):
            try:
                if form == ANSWERS:
                    content = answers_jsonl(studio.current().ledger, project.name, desk.items, work)
                    name = f"{project.name}-answers.jsonl"
                else:
                    name, content = export_zip(person, ref, form=next(one for one in FORMS if one == form))
            except RmkitError as error:
                st.error(harmless(str(error)))
                return
            st.download_button(f"Save {name} ({len(content):,} bytes)", content, file_name=name, type="primary")
