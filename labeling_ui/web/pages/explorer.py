"""Data explorer: find rows of a version, read one with all that is known about it."""

from __future__ import annotations

from typing import Any

import duckdb
import polars as pl
import streamlit as st

from labeling_ui.web.pages.warehouse_view import reading
from labeling_ui.web.texts import show_conversation, show_response
from rmkit.ids import canonical_json, parse_messages
from warehouse.lineage.why import why
from warehouse.versions.history import all_datasets
from warehouse.versions.versions import members, resolve

PAGE_ROWS = 50

QUERY = """
SELECT left(json_extract_string(p.messages, '$[#-1].content'), 160) AS prompt, u.kind, coalesce(m.split, '') AS split,
    round(100 * e.p[1])::INTEGER AS first, e.n_votes AS votes, m.weight, replace(e.h::VARCHAR, '-', '') AS id,
    count(*) OVER () AS total
FROM {members} m JOIN example e USING (example_id) JOIN unit u USING (unit_id) JOIN prompt p USING (prompt_id)
WHERE ($split IS NULL OR m.split = $split) AND ($kind IS NULL OR u.kind = $kind)
AND ($text IS NULL OR contains(lower(p.messages), lower($text)) OR EXISTS (
    SELECT 1 FROM response r WHERE list_contains(u.resp_ids, r.resp_id) AND contains(lower(r.messages), lower($text))))
AND ($sureness IS NULL OR abs(2 * e.p[1] - 1) <= $sureness)
ORDER BY e.h LIMIT $limit OFFSET $offset
"""


def page() -> None:
    """Run on every interaction."""
    st.header("Data", anchor=False)
    with reading() as connection:
        names = [one["name"] for one in all_datasets(connection)]
        if not names:
            st.info("No data yet. Bring some in with: `rmkit ingest FILE`", icon=":material/lightbulb:")
            return
        rows = _search(connection, names)
        if rows.is_empty():
            st.info("No row fits. Loosen a filter.")
            return
        st.caption(
            f"{rows['total'][0]:,} rows, {PAGE_ROWS} a page. Choose one to read it with all that is known about it."
        )
        chosen = st.dataframe(
            rows.drop("total"),
            hide_index=True,
            on_select="rerun",
            selection_mode="single-row",
            key="rows",
            column_config={
                "prompt": st.column_config.TextColumn(width="large"),
                "first": st.column_config.NumberColumn("first is better", format="%d%%"),
            },
        )
        picked = chosen.selection.rows
        if picked:
            _row(why(connection, rows["id"][picked[0]]))


def _search(connection: duckdb.DuckDBPyConnection, names: list[str]) -> pl.DataFrame:
    first, second, third, fourth = st.columns([2, 1, 1, 2])
    ref = first.selectbox("Dataset", names, key="explore-dataset", bind="query-params")
    split = second.selectbox("Split", ["train", "validation", "test"], index=None, placeholder="any")
    kind = third.selectbox("Kind", ["pair", "list", "single", "steps", "rubric"], index=None, placeholder="any")
    text = fourth.text_input("Contains", placeholder="text in prompt or responses")
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        unsure = st.toggle("Only labels that people are split on")
        page = int(st.number_input("Page", min_value=1, value=1, step=1, width=160))
    version_id = resolve(connection, str(ref))
    inputs: dict[str, Any] = {"split": split, "kind": kind, "text": text or None, "sureness": 0.5 if unsure else None}
    inputs |= {"limit": PAGE_ROWS, "offset": (page - 1) * PAGE_ROWS}
    return pl.DataFrame(connection.sql(QUERY.format(members=members(connection, version_id)), params=inputs).pl())


def _row(details: dict[str, Any]) -> None:
    """Texts first, then the lineage as it is stored."""
    prompt, responses = details.get("prompt") or {}, details.get("responses") or []
    with st.container(border=True):
        if isinstance(prompt, dict) and prompt.get("messages"):
            show_conversation(parse_messages(_json(prompt["messages"])), key="prompt")
        for number, response in enumerate(responses):
            st.caption(f"response {number}")
            if isinstance(response, dict) and response.get("messages"):
                show_response(parse_messages(_json(response["messages"])), key=f"response-{number}")
        with st.expander("Everything known about it", icon=":material/account_tree:"):
            st.json(details, expanded=2)


def _json(messages: Any) -> str:
    return messages if isinstance(messages, str) else canonical_json(messages)
