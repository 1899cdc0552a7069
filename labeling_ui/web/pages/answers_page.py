"""Answers: find them, read one with all that was said of its item, accept, comment or return it; for leads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow.compute as pc
import streamlit as st

from labeling_ui.desk.desk import Desk
from labeling_ui.projects.disputes import disputed_items
from labeling_ui.projects.people import Person
from labeling_ui.projects.reviews import Review, reviews, write_review
from labeling_ui.web import studio
from labeling_ui.web.answer_words import in_words, part_of
from labeling_ui.web.pages.choose import choose_project
from labeling_ui.web.texts import harmless, show_conversation, show_response
from rmkit.errors import RmkitError
from rmkit.ids import canonical_json

PAGE_ROWS = 100
STATES = ("not reviewed", "accepted", "returned", "commented")
PARTS = ("own", "known", "repeat")
COLUMNS = {
    "when": st.column_config.DatetimeColumn(format="D MMM, HH:mm"),
    "seconds": st.column_config.NumberColumn(format="%.1f"),
}


def page() -> None:
    """Run on every interaction; for leads."""
    person: Person = st.session_state["person"]
    st.header("Answers", anchor=False)
    name = choose_project()
    if name is None:
        return
    here = studio.current()
    desk, work = here.desk(name), here.work(name).frame()
    reviewed = reviews(here.ledger, name)
    _returned(reviewed, work)
    if work.is_empty():
        st.info("No answers yet.", icon=":material/lightbulb:")
        return
    rows = _filtered(desk, work, reviewed)
    if rows.is_empty():
        st.info("No answer fits. Loosen a filter.")
        return
    shown = _table(desk, rows, reviewed)
    labels = {row["event"]: _label(row, desk) for row in shown.to_dicts()}
    # Of the project: an answer of another one, chosen before, is none of these.
    picked = st.selectbox("Read one", list(labels), index=None, key=f"read-{name}", format_func=labels.__getitem__)
    if picked is not None:
        _answer(desk, person, shown.row(by_predicate=pl.col("event") == picked, named=True), work, reviewed)


def _returned(reviewed: Mapping[str, Review], work: pl.DataFrame) -> None:
    """Answers that were returned are superseded: they are not in the table, and wait for their annotator."""
    current = set(work["event"])
    waiting = [one for one in reviewed.values() if one.decision == "returned" and one.event not in current]
    if waiting:
        with st.expander(f"Returned: {len(waiting)}", icon=":material/undo:"):
            rows = [
                {"to": one.rater, "by": one.lead, "when": datetime.fromisoformat(one.time), "comment": one.comment}
                for one in waiting
            ]
            st.dataframe(rows, hide_index=True, column_config=COLUMNS)


def _filtered(desk: Desk, work: pl.DataFrame, reviewed: Mapping[str, Review]) -> pl.DataFrame:
    with st.container(horizontal=True):
        who = st.multiselect("Who", work["rater"].unique().sort().to_list(), key="answers-who")
        state = st.multiselect("Review", list(STATES), key="answers-state")
        part = st.multiselect("Items", list(PARTS), key="answers-part", help="own: the items' own answers")
        text = st.text_input("Prompt contains", key="answers-text")
    with st.container(horizontal=True):
        disputed = st.toggle("People disagree", key="answers-disputed")
        wrong = st.toggle("Known item, answered otherwise", key="answers-wrong")
        skipped = st.toggle("Skips and bad items", key="answers-skipped")
    rows = work.with_columns(
        review=pl.col("event").replace_strict(
            {event: one.decision for event, one in reviewed.items()}, default="not reviewed", return_dtype=pl.String
        ),
        part=part_of(pl.col("slot")),
    )
    rows = rows.filter(pl.col("verdict") != "ok" if skipped else pl.col("verdict") == "ok")
    for column, values in (("rater", who), ("review", state), ("part", part)):
        if values:
            rows = rows.filter(pl.col(column).is_in(values))
    if disputed:
        rows = rows.filter(pl.col("item").is_in(disputed_items(work)))
    if wrong:
        rows = rows.filter(~pl.col("gold_right"))
    if text:
        matches = pc.match_substring(desk.items.column("prompt"), canonical_json(text)[1:-1], ignore_case=True)
        rows = rows.filter(pl.col("item").is_in(pl.Series(pc.indices_nonzero(matches).to_pylist(), dtype=pl.Int64)))
    return rows.sort("time", descending=True)


def _table(desk: Desk, rows: pl.DataFrame, reviewed: Mapping[str, Review]) -> pl.DataFrame:
    n_pages = -(-rows.height // PAGE_ROWS)
    number = 1
    if n_pages > 1:
        number = int(st.number_input(f"Page of {n_pages}", min_value=1, max_value=n_pages, value=1, step=1, width=160))
    shown = rows.slice((number - 1) * PAGE_ROWS, PAGE_ROWS)
    st.caption(f"{rows.height:,} answers")
    table = [
        {
            "item": row["item"],
            "who": row["rater"],
            "said": in_words(desk.task, row),
            "known item": "" if row["gold_right"] is None else "right" if row["gold_right"] else "wrong",
            "review": row["review"],
            "comment": reviewed[row["event"]].comment if row["event"] in reviewed else "",
            "seconds": row["active_s"],
            "when": row["time"],
        }
        for row in shown.to_dicts()
    ]
    st.dataframe(
        pl.DataFrame(table, infer_schema_length=None),
        hide_index=True,
        height=min(36 * len(table) + 40, 400),
        column_config=COLUMNS,
    )
    return shown


def _label(row: Mapping[str, Any], desk: Desk) -> str:
    return f"item {row['item']}, {row['rater']}: {in_words(desk.task, row)} ({row['review']})"


def _answer(
    desk: Desk, person: Person, row: dict[str, Any], work: pl.DataFrame, reviewed: Mapping[str, Review]
) -> None:
    item = desk.items[row["item"]]
    show_conversation(item.prompt, key="answer-prompt")
    ranks = row["ranks"]
    for position, response in enumerate(item.responses):
        with st.container(border=True):
            best = ranks is not None and ranks[position] == 0
            st.caption(f"response {position + 1}" + (", chosen" if best and ranks.count(0) == 1 else ""))
            show_response(response, key=f"answer-{position}")
    others = work.filter(pl.col("item") == row["item"], pl.col("verdict") == "ok")
    st.dataframe(
        [
            {"who": one["rater"], "said": in_words(desk.task, one), "why": one["reason"] or "", "when": one["time"]}
            for one in others.to_dicts()
        ],
        hide_index=True,
        column_config=COLUMNS,
    )
    if before := reviewed.get(row["event"]):
        st.caption(harmless(f"{before.decision} by {before.lead}: {before.comment}"))
    with st.form("review", clear_on_submit=True):
        comment = st.text_input("Comment (the annotator reads it)")
        with st.container(horizontal=True):
            accept = st.form_submit_button("Accept", icon=":material/check:")
            back = st.form_submit_button("Return to the annotator", icon=":material/undo:")
            note = st.form_submit_button("Only comment", icon=":material/comment:")
    if accept or back or note:
        _review(desk, person, row, comment, decision="accepted" if accept else "returned" if back else "commented")


def _review(desk: Desk, person: Person, row: Mapping[str, Any], comment: str, *, decision: Any) -> None:
    ledger = studio.current().ledger
    try:
        if decision == "returned":
            desk.return_answer(person, row["event"], comment=comment)
        else:
            write_review(
                ledger,
                desk.project,
                person,
                event=row["event"],
                rater=row["rater"],
                decision=decision,
                comment=comment,
            )
    except RmkitError as error:
        st.error(harmless(str(error)))
        return
    st.rerun()
