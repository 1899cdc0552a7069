"""What trainers call prompts and completions (text, or lists of message dictionaries) as a model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rmkit.chat.reader import read_candidates
from rmkit.errors import DataError
from rmkit.serve.compat.template_markers import CONTROL
from rmkit.types import Candidates


def candidates(prompt: str | Sequence[Any], responses: Sequence[Any], *, tools: Any = ()) -> Candidates:
    """One prompt with its responses, each a text or a list of messages (mappings or Message objects): a model's input.

    Every spelling that `rmkit.chat.reader` knows is read; `tools` are schemas of the tools that could be called. Raises
    DataError for what cannot be read, without a response, and for a prompt text with a chat template's control tokens:
    it would be scored with them.
    """
    if isinstance(prompt, str) and (match := CONTROL.search(prompt)):
        raise DataError(
            f"the prompt is a text with the control token {match[0]!r}; give the trainer a conversational dataset "
            "(lists of messages), or use a route that reads policy text"
        )
    if isinstance(responses, str) or not len(responses):
        raise DataError(f"candidates takes a list of at least one response, got {responses!r:.80}")
    return read_candidates(prompt, responses, tools=tools)
