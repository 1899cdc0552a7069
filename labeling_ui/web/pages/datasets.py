"""Datasets: versions, what changed between two of them, and how to take one out."""

from __future__ import annotations

import polars as pl
import streamlit as st

from labeling_ui.web.pages.warehouse_view import reading
from labeling_ui.web.texts import harmless
from warehouse.versions.diff import diff
from warehouse.versions.history import all_datasets, one_dataset
from warehouse.versions.versions import resolve

SHOWN = ("ref", "message", "n_rows", "added", "removed", "changed", "author", "digest")


def page() -> None:
    """Run on every interaction."""
    st.header("Datasets", anchor=False)
    with reading() as connection:
        result = all_datasets(connection)
        if not result:
            st.info("No data yet. Bring some in with: `rmkit ingest FILE`", icon=":material/lightbulb:")
            return
        name = str(st.selectbox("Dataset", [one["name"] for one in result], key="dataset", bind="query-params"))
        summary = one_dataset(connection, name)
        versions = summary["versions"]
        table = pl.DataFrame(versions, infer_schema_length=None)
        table = table.with_columns(pl.col("digest").str.slice(0, 12)).select(SHOWN)
        st.dataframe(table, hide_index=True, column_config={"ref": "version", "n_rows": "rows"})
        if summary["tags"]:
            st.caption(harmless("tags: " + ", ".join(f"{tag} is {ref}" for tag, ref in summary["tags"].items())))
        st.code(f"rmkit export {name} --format trl", language=None)
        numbers = [f"v{one['number']}" for one in versions]
        if len(numbers) < 2:
            st.caption("A second version makes a comparison possible: `rmkit run clean --data " + name + "`")
            return
        old, new = st.columns(2)
        before = old.selectbox("From", numbers, index=1)
        after = new.selectbox("To", numbers, index=0)
        changed = diff(connection, resolve(connection, f"{name}@{before}"), resolve(connection, f"{name}@{after}"))
        cells = st.columns(4)
        for cell, what in zip(cells, ("added", "removed", "relabeled", "changed"), strict=True):
            cell.metric(what, getattr(changed, what))
