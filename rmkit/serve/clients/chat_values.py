"""What trainers call prompts and completions (text, or lists of message dictionaries) as conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.compat.template_markers import CONTROL
from rmkit.types import Candidates, Completion, Conversation, Message


def conversation(value: Any, *, role: str) -> Conversation:
    """Text becomes one turn of `role`; a list of messages (dictionaries or objects) is taken turn by turn.

    Raises DataError for anything else, and for text that carries a chat template's control tokens: it would be scored
    with them.
    """
    if isinstance(value, str):
        if role == "user" and (match := CONTROL.search(value)):
            raise DataError(
                f"the prompt is a text with the control token {match[0]!r}; give the trainer a conversational dataset "
                "(lists of messages), or use a route that reads policy text"
            )
        return (Message(role, value),)
    if value is None or isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise DataError(f"expected a text or a list of messages, got {type(value).__name__}")
    return tuple(_message(one) for one in value)


def candidates(prompt: str | Sequence[Any], responses: Sequence[str | Sequence[Any]]) -> Candidates:
    """One prompt with its responses, each a text or a list of messages (mappings or Message objects): a model's input.

    Raises DataError for what is neither, without a response, and for a prompt text with a chat template's control
    tokens.
    """
    if isinstance(responses, str) or not responses:
        raise DataError(f"candidates takes a list of at least one response, got {responses!r:.80}")
    replies = tuple(Completion(conversation(response, role="assistant")) for response in responses)
    return Candidates(conversation(prompt, role="user"), replies)


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping):
        value = {name: getattr(value, name, None) for name in ("role", "content", "name", "tool_calls", "tool_call_id")}
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str):
        raise DataError("a message has no role")
    return Message(
        role,
        _text(content),
        name=value.get("name"),
        tool_calls=tuple(dict(call) for call in value.get("tool_calls") or ()),
        tool_call_id=value.get("tool_call_id"),
    )


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence) and all(_is_text(part) for part in content):
        return "\n".join(part["text"] for part in content)
    raise DataError("only text can be scored; the message holds other parts")


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def grouped(pairs: Sequence[tuple[Conversation, Conversation] | DataError]) -> list[Candidates]:
    """Neighbors with the same prompt as one item; pairs that could not be read are left out."""
    items: list[Candidates] = []
    for pair in pairs:
        if isinstance(pair, DataError):
            continue
        prompt, reply = pair
        before = items.pop().completions if items and items[-1].prompt == prompt else ()
        items.append(Candidates(prompt, (*before, Completion(reply))))
    return items
