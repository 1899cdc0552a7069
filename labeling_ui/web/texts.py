"""Conversations on the screen: who says what, formatted or exactly as it is written, long turns folded.

One component draws a whole conversation, or all responses side by side: the server says what, the browser puts it
there. The HTML is made in `markup` alone, which escapes every character of a text that could be markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

import streamlit as st

from labeling_ui.web.differences import differences
from labeling_ui.web.forms import NAMES
from labeling_ui.web.markup import MAX_FORMATTED, exact, formatted
from rmkit.cli.display import printable
from rmkit.types import Conversation, Message

FOLD_OVER = 6000  # characters; a longer turn shows its beginning and a button for the rest
BEGIN = 60  # characters of a folded turn that are shown
_ASSETS = Path(__file__).parent / "assets"
_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")


def harmless(text: str) -> str:
    """A short text for Streamlit's own Markdown (captions, messages, labels), shown as it is."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def show_text(text: str, *, key: str, plain: bool = False) -> None:
    """One text; `plain` shows every character as it is. `key` is this element's own on its page."""
    _show(_text(text, plain=plain), key=key)


def show_conversation(turns: Conversation, *, key: str, plain: bool = False) -> None:
    """The turns with their roles; system and tool turns are folded."""
    _show(_conversation(turns, plain=plain), key=key)


def _conversation(turns: Conversation, *, plain: bool) -> str:
    return "".join(_turn(turn, plain=plain) for turn in turns)


def show_response(turns: Conversation, *, key: str, plain: bool = False) -> None:
    """One response, its assistant turns in full, other turns folded."""
    show_responses([turns], key=key, plain=plain)


def show_responses(
    responses: Sequence[Conversation],
    *,
    key: str,
    prompt: Conversation = (),
    plain: bool = False,
    whole: bool = False,
) -> None:
    """Responses side by side, each a region under its letter; in at most three columns, fewer where it is narrow.

    `prompt` stands before them, in the same message to the browser. `whole` has all of a very long text of a response
    on the page at once, not only its beginning.
    """
    parts = []
    for place, (name, turns) in enumerate(zip(NAMES, responses, strict=False)):
        heading = f"<h3>{name}</h3>" if len(responses) > 1 else ""
        label = f"Response {name}" if len(responses) > 1 else "Response"
        body = "".join(
            _body(turn, plain=plain, whole=whole) if turn.role == "assistant" else _folded(turn) for turn in turns
        )
        parts.append(f'<section class="response" data-column="{place}" aria-label="{label}">{heading}{body}</section>')
    columns = len(parts) if len(parts) < 4 else 2 + len(parts) % 2
    result = f'<div class="responses" style="--columns: {columns}">{"".join(parts)}</div>'
    _show(_conversation(prompt, plain=plain) + result, key=key)


def show_turns(turns: Conversation, *, key: str, plain: bool = False) -> None:
    """A whole conversation whose assistant turns are judged one by one, each a region under its number."""
    parts, number = [], 0
    for turn in turns:
        if turn.role != "assistant":
            parts.append(_turn(turn, plain=plain))
            continue
        parts.append(
            f'<section class="response" data-row="{number}" aria-label="Turn {number + 1}"><h3>turn {number + 1}</h3>'
            f"{_body(turn, plain=plain)}</section>"
        )
        number += 1
    _show("".join(parts), key=key)


def show_steps(steps: Sequence[str], *, key: str, plain: bool = False, notes: Sequence[str] = ()) -> None:
    """The steps of a solution, each a region under its number, with its note behind it where there are some."""
    parts = [
        f'<section class="response" aria-label="Step {n}"><h3>step {n}{escape(note)}</h3>'
        f"{_text(step, plain=plain)}</section>"
        for n, (step, note) in enumerate(zip_longest(steps, notes, fillvalue=""), start=1)
    ]
    _show(f'<div class="responses" style="--columns: 1">{"".join(parts)}</div>', key=key)


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
    """A turn that few need to read, exactly as it is; how it begins stands on the fold."""
    who = f"{turn.role} {turn.name}" if turn.name else turn.role
    begin = " ".join(turn.content[: 2 * BEGIN].split())
    shown = begin[:BEGIN] + ("…" if len(begin) > BEGIN or len(turn.content) > 2 * BEGIN else "")
    size = f"{len(turn.content):,} characters"
    label = f"{escape(printable(who))}: <q>{escape(printable(shown))}</q> ({size})"
    return f"<details><summary>{label}</summary>{exact(turn.content)}</details>"


def _body(turn: Message, *, plain: bool, whole: bool = False) -> str:
    """What a turn says, thinks and calls."""
    thinking = f"<details><summary>reasoning</summary>{exact(turn.reasoning)}</details>" if turn.reasoning else ""
    calls = "".join(_call(call) for call in turn.tool_calls)
    content = f'<div class="said">{_text(turn.content, plain=plain, whole=whole)}</div>' if turn.content else ""
    return thinking + content + calls


def _call(call: Mapping[str, Any]) -> str:
    """A tool's name, with the whole call in the fold."""
    function = call.get("function", call)
    name = str(function.get("name", "a tool")) if isinstance(function, Mapping) else "a tool"
    whole = exact(json.dumps(dict(call), indent=2, ensure_ascii=False))
    return f"<details><summary>calls <b>{escape(printable(name))}</b></summary>{whole}</details>"


def _text(text: str, *, plain: bool, whole: bool = False) -> str:
    """A long text shows its beginning. Of one too long to be formatted, the rest is laid out only when it is asked for,
    which takes a browser seconds; `whole` has it there at once, for who must find a place in it."""
    if len(text) <= FOLD_OVER:
        return exact(text) if plain else formatted(text)
    if whole or len(text) <= MAX_FORMATTED:
        shown = exact(text) if plain else formatted(text)
    else:
        cut = FOLD_OVER - text[:FOLD_OVER].endswith("\r")  # a line break of two characters stays one
        shown = f'{exact(text[:cut])}<div class="rest" hidden>{exact(text[cut:])}</div>'
    return f'<div class="long" data-length="{len(text):,}">{shown}</div>'


def _show(html: str, *, key: str) -> None:
    _component()(data={"html": html}, key=f"text-{key}")


@cache
def _component() -> Any:
    """Registered at first use: importing the module must not need a running studio."""
    css, js = ((_ASSETS / name).read_text("utf-8") for name in ("texts.css", "texts.js"))
    html = '<div class="rmkit-text"></div>'
    return st.components.v2.component("rmkit_text", html=html, css=css, js=js, isolate_styles=False)
