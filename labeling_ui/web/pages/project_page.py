"""Project: how far it is, how well people agree, how each of them works, and making the labels a version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

import altair as alt
import polars as pl
import streamlit as st

from labeling_ui.desk.desk import PAUSE, Desk
from labeling_ui.projects.disputes import create_adjudication
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.members import MemberRole, add_member, members, remove_member
from labeling_ui.projects.people import Person, people
from labeling_ui.projects.project import Project, add_queued
from labeling_ui.quality import Agreement, Alpha, PersonReport, agreement, people_reports
from labeling_ui.web import studio
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.my_work import counted, percent
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


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
    _progress(desk, work)
    if work.is_empty():
        st.info("No answers yet. Give people their links: `rmkit label people add NAME`", icon=":material/lightbulb:")
    else:
        _agreement(agreement(work))
        _people(desk, person, people_reports(work))
        _set_aside(desk, work)
    _members(project, person)
    _versions(project, person)
    _audit(name)


def _progress(desk: Desk, work: pl.DataFrame) -> None:
    done = desk.progress()
    st.progress(min(done["answered"] / max(done["wanted"], 1), 1.0))
    cells = st.columns(5)
    cells[0].metric(f"answers of {done['wanted']}", done["answered"])
    cells[1].metric(f"complete of {done['items']}", done["complete"])
    cells[2].metric("at work now", done["at_work"])
    cells[3].metric("known, repeated", done["gold_and_repeats"])
    cells[4].metric("set aside", done["set_aside"], help="as many people as should answer it called it a bad item")
    if work.height > 1:
        _pace(work)


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


def _agreement(result: Agreement) -> None:
    st.subheader("Agreement", anchor=False)
    nominal, ordinal, same = st.columns(3)
    _alpha(nominal, result.nominal, result.items, "any two different verdicts are equally far apart")
    _alpha(ordinal, result.ordinal, result.items, "verdicts with their strengths on one scale, a tie in the middle")
    same.metric("two people say the same", percent(result.pairs))
    same.caption(counted(result.pairs))


def _alpha(cell: Any, alpha: Alpha, items: int, meaning: str) -> None:
    if alpha.value != alpha.value:
        cell.metric(f"alpha, {alpha.level}", "–", help="needs different pair verdicts of two people on the same items")
        return
    low, high = alpha.interval
    cell.metric(f"alpha, {alpha.level}", f"{alpha.value:.2f}", help=f"Krippendorff's alpha: {meaning}")
    cell.caption(f"interval {low:.2f} to {high:.2f}, {items} items with two or more answers")


def _people(desk: Desk, person: Person, reports: list[PersonReport]) -> None:
    st.subheader("People", anchor=False)
    rows = [
        {
            "name": report.name,
            "answers": report.answers,
            "skill": report.skill,
            "known items": percent(report.gold),
            "with others": percent(report.with_others),
            "repeats alike": percent(report.repeated_same),
            "first shown": percent(report.first_shown),
            "longer": percent(report.longer),
            "seconds": report.active_s,
            "skipped": report.skipped,
            "to look at": "; ".join(report.warnings()),
        }
        for report in reports
    ]
    skill = st.column_config.NumberColumn(format="%.2f", help="chance of the true verdict (Dawid-Skene)")
    seconds = st.column_config.NumberColumn(format="%.1f", help="median of active seconds an answer")
    st.dataframe(pl.DataFrame(rows), hide_index=True, column_config={"skill": skill, "seconds": seconds})
    _intervals(reports)
    with st.expander("Pause or resume a person", icon=":material/pause_circle:"), st.form("pause"):
        name = st.selectbox("Who", [report.name for report in reports])
        what = st.segmented_control("What", ["pause", "resume"], default="pause", required=True)
        reason = st.text_input("Why (the person reads it)")
        if st.form_submit_button("Do it") and name:
            if not reason.strip():
                st.error("Say why: it is kept, and the person reads it.")
                return
            desk.pause(person, name, paused=what == "pause", reason=reason)
            st.rerun()


def _intervals(reports: list[PersonReport]) -> None:
    """Shares of known items right, with intervals, where anyone has seen some."""
    rows = [
        {
            "name": report.name,
            "right": report.gold.value,
            "low": report.gold.interval[0],
            "high": report.gold.interval[1],
        }
        for report in reports
        if report.gold.n
    ]
    if rows:
        chart = alt.Chart(pl.DataFrame(rows))
        scale = alt.Scale(domain=[0, 1])
        line = chart.mark_rule(strokeWidth=3, color="#1c83e1").encode(
            x=alt.X("low:Q", title="known items right", scale=scale), x2="high", y="name:N"
        )
        st.altair_chart(
            line + chart.mark_point(filled=True, size=90).encode(x="right:Q", y="name:N"), height=40 + 40 * len(rows)
        )


def _set_aside(desk: Desk, work: pl.DataFrame) -> None:
    bad = work.filter(pl.col("verdict") == "bad_item")
    if not bad.is_empty():
        st.subheader("Set aside as bad items", anchor=False)
        reasons = (
            bad.group_by("reason")
            .agg(times=pl.len(), items=pl.col("item").unique().sort())
            .sort("times", descending=True)
        )
        st.dataframe(reasons, hide_index=True)


def _members(project: Project, person: Person) -> None:
    """Who takes part; names of accounts come from the ledger, so that nobody is added who has none."""
    ledger = studio.current().ledger
    inside = members(ledger, project.name)
    closed = inside or project.task.kind == "adjudication"
    label = f"Members: {len(inside)}" if closed else "Open to everyone with an account"
    with st.expander(label, icon=":material/group:"), st.form("members"):
        if inside:
            st.dataframe([{"name": name, "role": role} for name, role in inside.items()], hide_index=True)
        who = st.selectbox("Who", [one.name for one in people(ledger)])
        roles = [*get_args(MemberRole), "no member"]
        first = roles.index("adjudicator") if project.task.kind == "adjudication" else 0
        role = st.segmented_control("As", roles, default=roles[first], required=True)
        if st.form_submit_button("Do it") and who and role:
            person.require("lead", "change who takes part")
            if role != "no member":
                add_member(ledger, project.name, who, role=role)
            elif who in inside:
                remove_member(ledger, project.name, who)
            st.rerun()


def _versions(project: Project, person: Person) -> None:
    st.subheader("Labels", anchor=False)
    with st.container(horizontal=True):
        if st.button("Make the labels a dataset version", type="primary", icon=":material/commit:"):
            try:
                result = commit_labels(studio.current().ledger, project, person)
            except RmkitError as error:
                st.error(harmless(str(error)))
            else:
                ref = result.version.ref
                st.success(f"{ref}: {result.version.n_rows} rows. Next: `rmkit train frozen --data {ref}`")
        if project.task.kind == "pairwise" and st.button("Adjudicate what people disagree on", icon=":material/gavel:"):
            try:
                disputes = create_adjudication(studio.current().ledger, project, person)
            except RmkitError as error:
                st.error(harmless(str(error)))
            else:
                n = disputes.desk(studio.current().ledger, read_only=True).progress()["items"]
                st.success(f"{disputes.name}: {n} items. Choose it in the sidebar and add its adjudicators.")
        if st.button("Take in queued findings", icon=":material/move_to_inbox:"):
            person.require("lead", "take in findings")
            added = add_queued(studio.current().ledger, project)
            studio.current().reopen(project.name)
            st.info(f"{added.items} new items" + "".join(f"; {n} left out: {why}" for why, n in added.left_out.items()))


def _audit(name: str) -> None:
    events = [
        recorded.event
        for recorded in studio.current().ledger.events(kinds=[PAUSE])
        if recorded.event.payload["project"] == name
    ]
    if events:
        with st.expander("Pauses so far", icon=":material/history:"):
            rows = [
                {
                    "time": event.time,
                    "by": event.actor,
                    "who": event.payload["rater"],
                    "what": "paused" if event.payload["paused"] else "resumed",
                    "why": event.payload["reason"],
                }
                for event in reversed(events)
            ]
            st.dataframe(pl.DataFrame(rows), hide_index=True)
