"""Models and leaderboard: what is served under which name, and how models did on benchmarks."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl
import streamlit as st

from evaluation.registry.leaderboard import leaderboards
from evaluation.suites.results import count_rule
from labeling_ui.web import studio
from rmkit import paths
from rmkit.errors import DataError
from rmkit.models.artifact import aliases


def page() -> None:
    """Run on every interaction."""
    st.header("Models", anchor=False)
    _artifacts()
    st.header("Leaderboard", anchor=False)
    try:
        boards = leaderboards(paths.home() / "runs" / "eval")
    except DataError:
        st.info("No result yet. Make one: `rmkit eval MODEL --suite NAME`", icon=":material/lightbulb:")
        return
    for board in boards:
        _board(board)


def _artifacts() -> None:
    rows = []
    for folder in aliases.artifacts():
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
    shown = _measure(board)
    rows = [
        {"model": model["name"], shown: measure.get("percent")}
        | {end: measure.get(end) for end in ("low", "high")}
        | {key: measure.get(key) for key in ("numerator", "denominator", "unscored")}
        | {"of all": (measure.get("of_all") or {}).get("percent"), "elo": model["elo"]}
        for model in board["models"]
        for measure in [model["measures"].get(shown) or {}]
    ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    known = table.drop_nulls([shown, "low", "high"])
    if not known.is_empty():
        chart = alt.Chart(known.rename({shown: "percent"}))
        who = alt.Y("model:N", title=None)
        bars = chart.mark_rule(strokeWidth=3, color="#1c83e1").encode(
            x=alt.X("low:Q", title=f"{shown}, percent", scale=alt.Scale(zero=False)), x2="high", y=who
        )
        points = chart.mark_point(filled=True, size=90).encode(x="percent:Q", y=who)
        st.altair_chart(bars + points, height=50 + 36 * len(rows))
    one_place = st.column_config.NumberColumn(format="%.1f")
    rounded = (shown, "low", "high", "of all", "elo")
    st.dataframe(table, hide_index=True, column_config=dict.fromkeys(rounded, one_place))
    st.caption(f"The order is by `of all`: {count_rule(board)}.")


def _measure(board: dict[str, Any]) -> str:
    """The headline, or the first measure that has a value where the data holds only a part of the benchmark."""
    headline = str(board["headline"])
    names = [headline, *(name for model in board["models"] for name in model["measures"])]
    having = (
        name
        for name in names
        if any((model["measures"].get(name) or {}).get("percent") is not None for model in board["models"])
    )
    return next(having, headline)
