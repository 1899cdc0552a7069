"""Rubrics: the criteria in the warehouse, to be read."""

from __future__ import annotations

import json

import streamlit as st

from labeling_ui.web.pages.warehouse_view import reading
from labeling_ui.web.texts import harmless, show_text
from rubrics.criteria import parse_rubric

PAGE_ROWS = 20

_QUERY = """
SELECT r.criteria, count(u.unit_id) AS used, any_value(left(json_extract_string(p.messages, '$[#-1].content'), 200))
FROM rubric r LEFT JOIN unit u USING (rubric_id) LEFT JOIN prompt p USING (prompt_id)
WHERE $text IS NULL OR contains(lower(r.criteria), lower($text))
GROUP BY r.rubric_id, r.criteria ORDER BY used DESC, r.rubric_id LIMIT $limit OFFSET $offset
"""


def page() -> None:
    """Run on every interaction."""
    st.header("Rubrics", anchor=False)
    with reading() as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM rubric").fetchall()
        if not count:
            st.info("No rubric yet. Import some with: `rmkit ingest FILE`", icon=":material/lightbulb:")
            return
        contains, number = st.columns([4, 1])
        text = contains.text_input("Contains", placeholder="text in a criterion")
        page = int(number.number_input("Page", min_value=1, value=1, step=1))
        inputs = {"text": text or None, "limit": PAGE_ROWS, "offset": (page - 1) * PAGE_ROWS}
        rows = connection.execute(_QUERY, inputs).fetchall()
    if not rows:
        st.info("No rubric on this page with this text.")
    for row, (criteria, used, prompt) in enumerate(rows):
        rubric = parse_rubric(json.loads(criteria))
        about = " ".join((prompt or rubric[0].criterion).split())[:90]
        with st.expander(f"{harmless(about)} ({len(rubric)} criteria, units: {used})"):
            if prompt:
                show_text(prompt, key=f"rubric-{row}", plain=True)
            for place, criterion in enumerate(rubric):
                with st.container(border=True):
                    show_text(criterion.criterion, key=f"rubric-{row}-{place}")
                    st.caption(f"weight {criterion.weight:g}{f', {criterion.tag}' if criterion.tag else ''}")
                    for level, meaning in sorted(criterion.levels.items()):
                        st.text(f"{level}: {meaning}")
