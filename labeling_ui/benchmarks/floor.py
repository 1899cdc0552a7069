"""The smallest page that answers a key, served like the studio: what Streamlit itself takes.

`python -m labeling_ui.benchmarks.floor PORT` serves it; Streamlit runs this same file as the page.
"""

from __future__ import annotations

import sys
from pathlib import Path


def serve(port: int) -> None:
    import uvicorn
    from streamlit.starlette import App

    from labeling_ui.web.server import configure

    configure()
    uvicorn.run(App(Path(__file__)), host="127.0.0.1", port=port, log_level="warning")


def page() -> None:
    import streamlit as st

    def count() -> None:
        st.session_state["count"] = st.session_state.get("count", 0) + 1

    st.text(f"This is item number {st.session_state.get('count', 0)}.")
    st.button("next", shortcut="1", on_click=count)


if __name__ == "__main__":
    # Streamlit runs the file without arguments of its own; only the process started by hand has a port.
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    page() if get_script_run_ctx() else serve(int(sys.argv[1]))
