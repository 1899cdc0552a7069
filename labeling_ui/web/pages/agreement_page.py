"""Agreement: how far people agree, by question, label, item and over time, and what they disagree on; for leads."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from labeling_ui.agreement import QuestionAgreement, by_item, by_label, by_question, over_time
from labeling_ui.anchoring import anchoring
from labeling_ui.projects.disputes import create_adjudication, disputed_items
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project
from labeling_ui.quality import Alpha
from labeling_ui.web import studio
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.pages.my_work import counted, percent
from labeling_ui.web.pages.suggestions_part import show_effect
from labeling_ui.web.texts import harmless
from rmkit.errors import RmkitError


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("Agreement", anchor=False)
    name = choose_project()
    if name is None:
        return
    here = studio.current()
    project, work = here.project(name), here.work(name).frame()
    questions = by_question(work)
    if not questions:
        st.info("No answers yet that could agree.", icon=":material/lightbulb:")
        return
    for question in questions:
        _question(question, several=len(questions) > 1)
    _labels(work)
    _over_time(work)
    if effect := anchoring(work):
        show_effect(effect)
    _items(project, person, work)


def _question(result: QuestionAgreement, *, several: bool) -> None:
    if several:
        st.subheader(result.question, anchor=False)
    with st.container(horizontal=True):
        _alpha(result.nominal, result.things, "any two different verdicts are equally far apart")
        _alpha(result.ordinal, result.things, "verdicts on one scale, by how far apart they are")
        with st.container(width=260):
            st.metric("two people say the same", percent(result.same))
            st.caption(counted(result.same))


def _alpha(alpha: Alpha, things: int, meaning: str) -> None:
    with st.container(width=260):
        if alpha.value != alpha.value:
            help = "needs different verdicts, of two people on the same items"
            st.metric(f"alpha, {alpha.level}", "–", help=help)
            return
        low, high = alpha.interval
        st.metric(f"alpha, {alpha.level}", f"{alpha.value:.3f}", help=f"Krippendorff's alpha: {meaning}")
        st.caption(f"interval {low:.2f} to {high:.2f}, {things} judged by two or more")


def _labels(work: pl.DataFrame) -> None:
    st.subheader("By label", anchor=False)
    rows = [
        {
            "question": one.question,
            "label": one.label,
            "answers": one.answers,
            "another says it too": counted(one.shared),
        }
        for one in by_label(work)
    ]
    st.dataframe(rows, hide_index=True)


def _over_time(work: pl.DataFrame) -> None:
    rows: list[dict[str, Any]] = [
        {"time": time, "share": share.value, "low": share.interval[0], "high": share.interval[1], "pairs": share.n}
        for time, share in over_time(work)
    ]
    if len(rows) < 2:
        return
    st.subheader("Over time", anchor=False)
    chart = alt.Chart(pl.DataFrame(rows))
    time, scale = alt.X("time:T", title=None), alt.Scale(domain=[0, 1])
    line = chart.mark_rule(strokeWidth=3, color="#1c83e1").encode(
        x=time, y=alt.Y("low:Q", title="say the same", scale=scale), y2="high"
    )
    points = chart.mark_point(filled=True, size=80).encode(x=time, y="share:Q", tooltip=["share", "pairs"])
    st.altair_chart(line + points, height=220)


def _items(project: Project, person: Person, work: pl.DataFrame) -> None:
    disputed = disputed_items(work)
    st.subheader(f"Items on which people disagree: {len(disputed)}", anchor=False)
    rows = [
        {"item": one.item, "answers": one.answers, "different": one.different, "say the same": percent(one.same)}
        for one in by_item(work)
        if one.different > 1
    ]
    if rows:
        st.dataframe(rows, hide_index=True, height=min(36 * len(rows) + 40, 320))
    if project.task.kind == "pairwise" and st.button("Adjudicate what people disagree on", icon=":material/gavel:"):
        try:
            disputes = create_adjudication(studio.current().ledger, project, person)
        except RmkitError as error:
            st.error(harmless(str(error)))
            return
        n = disputes.desk(studio.current().ledger, read_only=True).progress()["items"]
        st.success(
            f"{disputes.name}: {n} items. Leads decide on the page Annotate, as do adjudicators added on People."
        )
