"""Conversations on the screen: who says what, formatted or exactly as it is written, long turns folded.

One component draws a whole conversation, or all responses side by side: the server says what, the browser puts it
there. The HTML is made in `markup` alone, which escapes every character of a text that could be markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from labeling_ui.web.differences import differences
from labeling_ui.web.markup import exact, formatted
from rmkit.cli.display import printable
from rmkit.types import Conversation, Message

FOLD_OVER = 6000  # characters; a longer turn shows its beginning and a button for the rest
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ASSETS = Path(__file__).parent / "assets"
_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")


def harmless(text: str) -> str:
    """A short text for Streamlit's own Markdown (captions, messages, labels), shown as it is."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def show_text(text: str, *, key: str, plain: bool = False) -> None:
    """One text; `plain` shows every character as it is. `key` is this element's own on its page."""
    _show(_text(text, plain=plain), key=key)


def show_conversation(turns: Conversation, *, key: str, plain: bool = False, at_top: bool = False) -> None:
    """The turns with their roles; system and tool turns are folded. `at_top` scrolls up where the text is a new one."""
    _show("".join(_turn(turn, plain=plain) for turn in turns), key=key, at_top=at_top)


def show_response(turns: Conversation, *, key: str, plain: bool = False) -> None:
    """One response, its assistant turns in full, other turns folded."""
    show_responses([turns], key=key, plain=plain)


def show_responses(responses: Sequence[Conversation], *, key: str, plain: bool = False) -> None:
    """Responses side by side, each a region under its letter; in at most three columns, fewer where it is narrow."""
    parts = []
    for name, turns in zip(NAMES, responses, strict=False):
        heading = f"<h3>{name}</h3>" if len(responses) > 1 else ""
        label = f"Response {name}" if len(responses) > 1 else "Response"
        body = "".join(_body(turn, plain=plain) if turn.role == "assistant" else _folded(turn) for turn in turns)
        parts.append(f'<section class="response" aria-label="{label}">{heading}{body}</section>')
    columns = len(parts) if len(parts) < 4 else 2 + len(parts) % 2
    _show(f'<div class="responses" style="--columns: {columns}">{"".join(parts)}</div>', key=key)


def show_differences(first: Conversation, second: Conversation, *, names: tuple[str, str]) -> None:
    """Two responses side by side as they are written, with the words marked that stand only in one of them."""
    show_marked(*(_assistant(turns) for turns in (first, second)), names=names)


def show_marked(first: str, second: str, *, names: tuple[str, str]) -> None:
    """Two texts side by side, with the words marked that stand only in one of them."""
    result = differences(printable(first), printable(second))
    st.caption(
        f":orange-background[**only in {names[0]}**] :blue-background[**only in {names[1]}**] "
        f"{100 * result.same:.0f}% of the words are the same"
    )
    for name, text, column in zip(names, (result.first, result.second), st.columns(2), strict=True):
        with column, st.container(border=True):
            st.markdown(f"**{name}**")
            st.markdown(text, anchors=False)


def _assistant(turns: Conversation) -> str:
    return "\n\n".join(turn.content for turn in turns if turn.role == "assistant")


def _turn(turn: Message, *, plain: bool) -> str:
    if turn.role in ("system", "tool"):
        return _folded(turn)
    role = escape(turn.role)
    return f'<section class="turn {role}" aria-label="{role}"><h3>{role}</h3>{_body(turn, plain=plain)}</section>'


def _folded(turn: Message) -> str:
    """A turn that few need to read, exactly as it is."""
    return f"<details><summary>{escape(turn.role)} message</summary>{exact(turn.content)}</details>"


def _body(turn: Message, *, plain: bool) -> str:
    """What a turn says, thinks and calls."""
    thinking = f"<details><summary>reasoning</summary>{exact(turn.reasoning)}</details>" if turn.reasoning else ""
    written = [json.dumps(dict(call), indent=2, ensure_ascii=False) for call in turn.tool_calls]
    calls = "".join(f"<details><summary>calls a tool</summary>{exact(call)}</details>" for call in written)
    return thinking + (_text(turn.content, plain=plain) if turn.content else "") + calls


def _text(text: str, *, plain: bool) -> str:
    shown = exact(text) if plain else formatted(text)
    if len(text) <= FOLD_OVER:
        return shown
    return f'<div class="long" data-length="{len(text):,}">{shown}</div>'


def _show(html: str, *, key: str, at_top: bool = False) -> None:
    _component()(data={"html": html, "at_top": at_top}, key=f"text-{key}")


@cache
def _component() -> Any:
    """Registered at first use: importing the module must not need a running studio."""
    css, js = ((_ASSETS / name).read_text("utf-8") for name in ("texts.css", "texts.js"))
    html = '<div class="rmkit-text"></div>'
    return st.components.v2.component("rmkit_text", html=html, css=css, js=js, isolate_styles=False)
