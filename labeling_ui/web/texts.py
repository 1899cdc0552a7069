"""Model and user text on the screen: formatted where that is safe, never as HTML, never loading anything.

Streamlit escapes HTML in Markdown. What it would still act on is taken out here: images (they would fetch an address of
the model's choosing), links (shown as text with their address), directives such as `:red[...]`, `:material/...:` and
emoji codes, and LaTeX (a dollar sign is usually money). Code blocks stay as they are. Control characters are shown as
escapes: who copies a text into a terminal would otherwise paste its ANSI sequences.
"""

from __future__ import annotations

import re

import streamlit as st

from labeling_ui.web.differences import differences
from rmkit.cli.display import printable
from rmkit.types import Conversation, Message

_FENCE = re.compile(r"(^```.*?^```[^\n]*$|^```.*\Z)", re.MULTILINE | re.DOTALL)
_IMAGE = re.compile(r"!\[")
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\n]*)\)")
_ACTED_ON = re.compile(r"(?<!\\)([$<>:])")
AVATARS = {"user": "user", "assistant": "assistant", "system": ":material/settings:", "tool": ":material/build:"}


def harmless(text: str) -> str:
    """Markdown that shows the text and does nothing else."""
    parts = _FENCE.split(printable(text))
    return "".join(part if part.startswith("```") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    text = _LINK.sub(lambda link: f"{link[1]} ({link[2]})", _IMAGE.sub("[", text))
    text = re.sub(r"(?m)^(\s*)>", r"\1\\>", text)
    return _ACTED_ON.sub(r"\\\1", text).replace("\\\\", "\\")


def show_text(text: str, *, plain: bool = False) -> None:
    """One text; `plain` shows every character as it is."""
    if plain:
        st.text(printable(text))
    else:
        st.markdown(harmless(text), anchors=False)


def show_conversation(turns: Conversation, *, plain: bool = False) -> None:
    """The turns with their roles; system and tool turns are folded."""
    for turn in turns:
        if turn.role in ("system", "tool"):
            with st.expander(f"{turn.role} message", icon=AVATARS[turn.role]):
                show_text(turn.content, plain=True)
        else:
            with st.chat_message(turn.role, avatar=AVATARS.get(turn.role)):
                show_turn(turn, plain=plain)


def show_response(turns: Conversation, *, name: str | None = None, plain: bool = False) -> None:
    """A response without a bubble, under its name: its last turn in full, tool turns folded."""
    if name:
        st.markdown(f"**{name}**")
    for turn in turns:
        if turn.role == "assistant":
            show_turn(turn, plain=plain)
        else:
            with st.expander(f"{turn.role} message", icon=AVATARS.get(turn.role)):
                show_text(turn.content, plain=True)


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


def show_turn(turn: Message, *, plain: bool) -> None:
    """One turn with the tools it calls."""
    show_text(turn.content, plain=plain)
    for call in turn.tool_calls:
        with st.expander("calls a tool", icon=AVATARS["tool"]):
            st.json(dict(call))
