"""Where a response and its steps lie in the rendered text, and in which tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from rmkit.chat.reasoning import Reasoning, reasoning_length
from rmkit.chat.template import THINK_TAG
from rmkit.errors import DataError
from rmkit.types import Completion


def common_chars(first: str, second: str) -> int:
    """Length of the longest common beginning."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def tokens_before(offsets: Sequence[tuple[int, int]], char: int) -> int:
    """Number of leading tokens that end at or before the character."""
    return bisect_right(offsets, char, key=lambda span: span[1])


def step_tokens(
    text: str, offsets: Sequence[tuple[int, int]], completion: Completion, starts: Sequence[int], reasoning: Reasoning
) -> list[int]:
    """Per step, the index of the token holding its last visible character; `starts` are where each assistant turn
    begins to speak, at the latest the place of its first visible character."""
    if not completion.step_ends:
        return []
    places = _text_places(text, completion, starts, reasoning)
    result, start = [], 0
    for end in completion.step_ends:
        visible = [place for place in places[start:end] if place >= 0 and not text[place].isspace()]
        if not visible:
            raise DataError(f"the step ending at character {end} has no visible character in the rendered text")
        # of several byte tokens of one character the last is meant
        result.append(bisect_right(offsets, visible[-1], key=lambda span: span[0]) - 1)
        start = end
    return result


def _text_places(text: str, completion: Completion, starts: Sequence[int], reasoning: Reasoning) -> list[int]:
    """For every character of `completion.text`, where it lies in the rendered text; -1 where it was stripped."""
    places: list[int] = []
    at = 0
    turns = [message for message in completion.messages if message.role == "assistant"]
    for number, (message, start) in enumerate(zip(turns, starts, strict=True)):
        at = max(at, start)  # what a tool said before may be the very words
        if number:
            places += [-1, -1]  # the blank line between assistant turns
        content, thought = message.content, (message.reasoning or "").strip()
        if reasoning == "strip":
            length = reasoning_length(content)
            places += [-1] * length
            content = content[length:]
        elif thought:  # written before the content, which may quote it
            at = max(at, text.find(thought, at) + len(thought))
        for piece in THINK_TAG.split(content):
            body = piece.strip()
            begin = text.find(body, at)
            if begin < 0 and not THINK_TAG.fullmatch(piece):  # a template may have marks of its own for the tags
                raise DataError("the chat template rewrites the response, so its steps cannot be placed")
            lead = len(piece) - len(piece.lstrip())
            places += [-1] * lead + (list(range(begin, begin + len(body))) if begin >= 0 else [-1] * len(body))
            places += [-1] * (len(piece) - lead - len(body))
            at = max(at, begin + len(body))
    return places
