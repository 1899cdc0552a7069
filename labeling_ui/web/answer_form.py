"""The answer's controls in the browser: one component for all kinds of forms, which listens to the page's keys.

Drafts do not come through Streamlit, which would draw the page anew with every letter: the browser puts them to
`/drafts/PROJECT/ID`, whose id only the one who holds the item knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from labeling_ui.web.forms import Form

PATH = "/drafts/{project}/{id}"
MAX_BODY = 1_000_000  # bytes
KEY = "answer-form"
PAGE_KEYS = (
    ("U", "take the last answer back"),
    ("S", "skip"),
    ("F", "finish a live chat"),
    ("K", "keep your own answer beside a suggestion"),
    ("W", "something is wrong with the item"),
    ("D", "mark what differs between two responses"),
    ("P", "the exact text, every character as it was written"),
    ("?", "these keys"),
)
_ASSETS = Path(__file__).parent / "assets"


def show_form(
    form: Form,
    *,
    id: str,
    path: str | None,
    draft: Mapping[str, Any],
    announcement: str,
    refused: str | None,
    send: Callable[[Any], None],
    work: Mapping[str, object] | None = None,
) -> None:
    """Draw the form; `send` gets what the browser hands back for this `id`.

    Drafts go to `path`, nowhere where it is None. `refused` says why the last try was no answer; `announcement` is read
    out to those who do not see the page. `work` says how the time on the item is counted, None where it is not.
    """
    attempts = st.session_state.setdefault("answer-attempts", 0) + (refused is not None)
    st.session_state["answer-attempts"] = attempts

    def on_answer() -> None:
        told = st.session_state[KEY].answer
        if told and told.get("id") == id:  # of an item that has gone, it is a key pressed twice
            send(told.get("values"))

    data = {
        "id": id,
        "attempt": attempts,
        "path": path,
        "draft": dict(draft),
        "announce": announcement,
        "work": work,
        "refused": refused,
        "form": form.data,
        "keys": PAGE_KEYS,
    }
    _component()(data=data, key=KEY, on_answer_change=on_answer, on_look_change=lambda: None)


def preview_form(form: Form, *, id: str) -> None:
    """Draw the form as annotators see it; it listens to no key, takes no focus and sends nothing."""
    data = {"id": id, "attempt": 0, "path": None, "draft": {}, "announce": "", "refused": None}
    _component()(data=data | {"form": form.data, "keys": (), "preview": True}, key="answer-preview")


@cache
def _component() -> Any:
    """Registered at first use: importing the module must not need a running studio."""
    css = (_ASSETS / "answer.css").read_text("utf-8")
    js = "\n".join((_ASSETS / name).read_text("utf-8") for name in ("answer.js", "spans.js", "activity.js"))
    html = '<div class="rmkit-answer" role="group" tabindex="-1"></div>'
    return st.components.v2.component("rmkit_answer", html=html, css=css, js=js, isolate_styles=False)
