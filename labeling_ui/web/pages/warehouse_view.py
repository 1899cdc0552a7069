"""Reading the warehouse from a page: shortly, read-only, and with a word on what to do where that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import duckdb
import streamlit as st

from rmkit.errors import BusyError, StoreError
from warehouse.store import open_warehouse


@contextlib.contextmanager
def reading() -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection for the block; the page ends with a message where there is none to be had."""
    try:
        with open_warehouse(read_only=True, wait_s=5.0) as connection:
            yield connection
    except BusyError:
        st.warning("The warehouse is being written to. Try again in a moment.", icon=":material/hourglass:")
        st.stop()
    except StoreError as error:
        st.info(str(error), icon=":material/lightbulb:")
        st.stop()
