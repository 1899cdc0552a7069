"""Putting text that others wrote into a judge's prompt, so that it stays material.

Every piece stands between tags that carry a mark. The mark is a hash over all the pieces: their authors cannot know it,
since it depends on the very text they would have to write it into, and it is the same at each run, so that cached
answers are found. Inside, tags of this prompt and control tokens of chat templates (which some tokenizers would turn
into real turns) get a space after their bracket, so they are read but have no effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rmkit.ids import content_hash, digest

_OURS = r"/?(?:response|conversation|reference|rubric)\b"
_TEMPLATES = r"\||/?s>|/?(?:bos|eos|pad|unk)>|(?:start|end)_of_turn>|/?think>|/?(?:tool_call|tool_response)>|｜"
_ANGLED = re.compile(rf"<(?={_OURS}|{_TEMPLATES})", re.IGNORECASE)
_SQUARE = re.compile(r"\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\])")
_SYSTEM = re.compile(r"<<(?=/?SYS>>)")


def harmless(text: str) -> str:
    """The text with fence tags and control tokens broken up; other texts are unchanged."""
    return _SYSTEM.sub("< <", _SQUARE.sub("[ ", _ANGLED.sub("< ", text)))


def mark_of(texts: Sequence[str]) -> str:
    """The mark of a prompt that holds these texts: 12 hex digits."""
    return content_hash(digest([content_hash(text) for text in texts]))[:12]


def fenced(pieces: Mapping[str, str], *, mark: str) -> dict[str, str]:
    """Name -> piece between `<name mark>` and `</name mark>`; empty pieces stay empty."""
    return {
        name: f"<{name} {mark}>\n{harmless(text)}\n</{name} {mark}>" if text else "" for name, text in pieces.items()
    }
