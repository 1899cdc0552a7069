"""What a model thought before it spoke: apart in `Message.reasoning`, or in its content as `<think>...</think>`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from rmkit.types import Message

Reasoning = Literal["keep", "strip"]

OPEN, CLOSE = "<think>", "</think>"


def reasoning_length(content: str) -> int:
    """Characters at the beginning of a content that are reasoning, tags included.

    The opening tag may be missing, for many templates write it into the generation prompt; the closing one may, where
    the model was cut off while it thought.
    """
    head, close, _ = content.partition(CLOSE)
    opened = head.lstrip().startswith(OPEN)
    if close and (opened or OPEN not in head):
        return len(head) + len(close)
    return len(content) if opened else 0


def without_reasoning(message: Message) -> Message:
    """The message as an answer alone: no reasoning apart, none at the beginning of an assistant's content."""
    if message.role != "assistant":
        return message if message.reasoning is None else replace(message, reasoning=None)
    if length := reasoning_length(message.content):
        return replace(message, content=message.content[length:].lstrip(), reasoning=None)
    return message if message.reasoning is None else replace(message, reasoning=None)


def in_content(message: Message) -> Message:
    """The message with its reasoning in front of the content, as models without a field for it write it."""
    if not message.reasoning:
        return message
    return replace(message, content=f"{OPEN}\n{message.reasoning}\n{CLOSE}\n\n{message.content}", reasoning=None)
