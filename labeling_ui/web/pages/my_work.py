"""My work: what I have answered, what leads wrote about it, and taking an answer back.

How it compares with known answers and with repeats is for leads: beside the answer it would say which items are known.
"""

from __future__ import annotations

import polars as pl
import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.projects.people import Person
from labeling_ui.projects.reviews import Review, reviews
from labeling_ui.quality import Share, people_reports
from labeling_ui.web import studio
from labeling_ui.web.opinion import show_opinion
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.texts import harmless, show_response

SHOWN = 20  # at a time: each one is drawn with its texts


def page() -> None:
    """Run on every interaction."""
    person: Person = st.session_state["person"]
    st.header("My work", anchor=False)
    name = choose_project()
    if name is None:
        return
    here = studio.current()
    desk, work = here.desk(name), here.work(name).frame()
    mine = work.filter(pl.col("rater") == person.name)
    if mine.is_empty():
        st.info("Nothing here yet: your answers appear as soon as you give the first.", icon=":material/lightbulb:")
        return
    _figures(mine)
    _per_day(mine)
    st.subheader("Answers, newest first", anchor=False)
    history = desk.history(person)
    shown = st.session_state.setdefault("my-work-shown", SHOWN)
    reviewed = reviews(here.ledger, name)
    for hold in history[:shown]:
        _answer(desk, person, hold, mine, None if hold.event is None else reviewed.get(hold.event))
    if len(history) > shown and st.button("Show older ones", type="tertiary"):
        st.session_state["my-work-shown"] = shown + SHOWN
        st.rerun()


def _figures(mine: pl.DataFrame) -> None:
    (report,) = people_reports(mine)
    answers, skipped, seconds = st.columns(3)
    answers.metric("answers", report.answers)
    skipped.metric("skipped", report.skipped, help=f"and {report.bad_items} said to be bad items")
    seconds.metric("seconds", "" if report.active_s is None else f"{report.active_s:.1f}", help="median of an answer")


def _per_day(mine: pl.DataFrame) -> None:
    days = mine.group_by(pl.col("time").dt.date().alias("day")).agg(answers=pl.len()).sort("day")
    if days.height > 1:
        st.bar_chart(days, x="day", y="answers", height=180)


def _answer(desk: Desk, person: Person, hold: Lease, mine: pl.DataFrame, review: Review | None) -> None:
    summary = mine.filter(pl.col("event") == hold.event).to_dicts()
    if not summary:
        return
    item = desk.items[hold.item]
    label = item.prompt[-1].content[:90].replace("\n", " ") if item.prompt else f"item {hold.item}"
    verdict = "" if summary[0]["verdict"] == "ok" else f" ({summary[0]['verdict'].replace('_', ' ')})"
    comment = review.comment if review else ""
    icon = ":material/comment:" if comment else None
    with st.expander(f"{summary[0]['time']:%d %b %H.%M}{verdict}: {harmless(label)}", icon=icon):
        if review and comment:
            st.info(harmless(f"{review.lead}: {comment}"), icon=":material/comment:")
        for place, response in enumerate(desk.shown(hold)):
            ranks = summary[0]["ranks"]
            chosen = ranks is not None and ranks[hold.order[place]] == 0
            with st.container(border=True):
                if chosen:
                    st.caption("your choice" if ranks.count(0) == 1 else "tie")
                show_response(response, key=f"mine-{place}-{hold.id}")
        show_opinion(desk, person, hold, key=hold.id, folded=False)
        if st.button("Take it back", key=f"undo-{hold.id}-{hold.revision}", icon=":material/undo:"):
            desk.undo(person, hold.id)
            st.rerun()


def percent(share: Share) -> str:
    """A share in percent, a dash of none."""
    return f"{100 * share.value:.0f}%" if share.n else "–"


def counted(share: Share) -> str:
    """The counts behind a share, with the interval."""
    if not share.n:
        return "none yet"
    low, high = share.interval
    return f"{share.right} of {share.n}, 95% interval {100 * low:.0f} to {100 * high:.0f}%"
