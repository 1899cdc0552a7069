"""Models and leaderboard: what is served under which name, and how models did on benchmarks."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from evaluation.leaderboard import leaderboards
from labeling_ui import studio
from rmkit import paths
from rmkit.errors import DataError
from rmkit.models import aliases


def page() -> None:
    """Run on every interaction."""
    st.header("Models", anchor=False)
    _artefacts()
    st.header("Leaderboard", anchor=False)
    try:
        boards = leaderboards(paths.home() / "runs" / "eval")
    except DataError:
        st.info("No result yet. Make one: `rmkit eval MODEL --suite NAME`", icon=":material/lightbulb:")
        return
    for board in boards:
        _board(board)


def _artefacts() -> None:
    rows = []
    for folder in aliases.artefacts():
        card = aliases.card_of(folder)
        rows.append(
            {name: card.get(name) for name in ("name", "kind", "scale", "fingerprint")} | {"folder": folder.name}
        )
    if not rows:
        st.info("No model yet. Train one: `rmkit train frozen --data NAME@VERSION`", icon=":material/lightbulb:")
        return
    st.dataframe(pl.DataFrame(rows), hide_index=True)
    served = {
        alias: aliases.current(studio.current().ledger, alias) for alias in aliases.stacks(studio.current().ledger)
    }
    for alias, promotion in served.items():
        if promotion is not None:
            st.caption(f"{alias} is {aliases.locate(promotion).name}")


def _board(board: dict[str, Any]) -> None:
    st.subheader(board["title"], anchor=False)
    headline = board["headline"]
    rows = []
    for model in board["models"]:
        measure = model["measures"][headline]
        low, high = measure.get("interval") or (None, None)
        rows.append(
            {"model": model["name"], headline: measure["percent"], "low": low, "high": high, "elo": model["elo"]}
        )
    table = pl.DataFrame(rows, infer_schema_length=None)
    known = table.drop_nulls([headline, "low", "high"])
    if not known.is_empty():
        chart = alt.Chart(known)
        bars = chart.mark_rule(strokeWidth=3).encode(
            x=alt.X("low:Q", title=f"{headline}, percent"), x2="high", y="model:N"
        )
        points = chart.mark_point(filled=True, size=90).encode(x=f"{headline}:Q", y="model:N")
        st.altair_chart(bars + points, height=50 + 36 * len(rows))
    st.dataframe(table, hide_index=True)
