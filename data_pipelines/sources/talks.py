"""Prompts and replies in the ways files write them: one text, marks, turns, a talk that holds both, one object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.sources.unit_builder import UnusableRowError
from rmkit.chat.reader import ROLE_NAMES

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_EXTRA_ID = re.compile(r"\n*<extra_id_1>(User|Assistant)\n")
_BODY = ("content", "value", "text", "generation", "answer", "completion", "response", "output", "messages")
_AUTHOR = ("model", "llm_name", "generator", "model_name", "policy")


def marked_turns(text: str) -> list[dict[str, str]] | None:
    """The turns of a text with Human: and Assistant: marks from its beginning on (or HelpSteer's <extra_id_1>), an open
    mark at the end left out; None for any other text.
    """
    if "<extra_id_1>" in text:
        parts = _EXTRA_ID.split(text)
        lead = [{"role": "user", "content": parts[0]}] if parts[0].strip() else []
    elif (start := text.lstrip(" \n\ufeff")).startswith("Human:") and "Assistant:" in start:
        parts = _MARK.split(start)
        lead = []
        if parts[0].strip() or len(parts) < 3:
            return None
    else:
        return None
    names = {"Human": "user", "User": "user", "Assistant": "assistant"}
    turns = [
        {"role": names[mark], "content": body.strip()} for mark, body in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()  # the mark that asks for the reply
    return lead + turns


def prompt_of(value: Any) -> Any:
    """A prompt as text or turns: marks become turns, a single turn a list of it."""
    if isinstance(value, str):
        return marked_turns(value) or value
    if isinstance(value, Mapping):
        if isinstance(value.get("messages"), list):
            return value["messages"]
        return [value] if is_turn(value) else body_of(value)[0]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        if len(value) > 1:
            raise UnusableRowError("the prompt is a list of texts; whose turns they are is not said")
        return value[0]
    return value


def is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or "from" in value) and len(value) > 1


def is_talk(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_turn(item) for item in value)


def role_of(turn: Mapping[str, Any]) -> str:
    name = turn.get("role") or turn.get("from")
    spelled = str(name).strip().lower()
    return "assistant" if spelled == "function_call" else ROLE_NAMES.get(spelled, spelled)


def body_of(value: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """(text, author, the other keys) of an object that stands for a reply."""
    name = next((key for key in _BODY if value.get(key) not in (None, "")), None)
    if name is None:
        raise UnusableRowError("an object stands for a reply, but none of its fields is named like a text")
    author = next((key for key in _AUTHOR if value.get(key)), None)
    others = {
        key: item for key, item in value.items() if key not in (name, author, "role", "from") and item is not None
    }
    return value[name], value.get(author) if author else None, others


def holds_prompt(reply: Any) -> bool:
    """Whether a reply is a talk with a user's turn in it."""
    return is_talk(reply) and any(role_of(turn) == "user" for turn in reply)


def holds_talk(reply: Any) -> bool:
    """Whether a reply brings its prompt: a talk with a user's turn, or a transcript."""
    return holds_prompt(reply) or (isinstance(reply, str) and marked_turns(reply) is not None)


def split_talk(talk: Any) -> tuple[list[Any], list[Any]]:
    """(prompt, reply) of a talk: the reply is what stands after the last user or tool result that a user can see."""
    if isinstance(talk, str):
        talk = marked_turns(talk)
    if not is_talk(talk):
        raise UnusableRowError("the talk is no list of turns")
    end = len(talk)
    if role_of(talk[-1]) != "assistant":
        raise UnusableRowError("the talk does not end with a reply")
    while end and role_of(talk[end - 1]) == "assistant":
        end -= 1
    if not end:
        raise UnusableRowError("no user turn in the prompt")
    return list(talk[:end]), list(talk[end:])


def shared_talk(talks: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
    """The prompt that several talks share and what each says after it; at least one turn is left to each."""
    size = min(len(talk) for talk in talks) - 1
    common = next((at for at in range(size) if any(not same_turn(talk[at], talks[0][at]) for talk in talks)), size)
    while common and role_of(talks[0][common - 1]) not in ("user", "tool"):
        common -= 1
    if not common:
        raise UnusableRowError("no prompt: the talks share no beginning that ends with a user's turn")
    return list(talks[0][:common]), [list(talk[common:]) for talk in talks]


def same_turn(one: Any, other: Any) -> bool:
    return is_turn(one) and is_turn(other) and role_of(one) == role_of(other) and content(one) == content(other)


def content(turn: Mapping[str, Any]) -> Any:
    return turn["content"] if "content" in turn else turn.get("value")


def without_prompt(prompt: Any, reply: Any) -> Any:
    """A reply's own turns, where it repeats the prompt's before them."""
    if not is_talk(reply):
        return reply
    lead = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if len(reply) > len(lead) and all(same_turn(one, other) for one, other in zip(lead, reply, strict=False)):
        return reply[len(lead) :]
    return reply


def with_history(history: Any, prompt: Any) -> list[Any]:
    """The turns of a history, [question, answer] pairs or turns, and then the prompt's."""
    if not isinstance(history, list):
        raise UnusableRowError("history is not a list")
    turns: list[Any] = []
    for item in history:
        if is_turn(item):
            turns.append(item)
        elif isinstance(item, list) and len(item) == 2:
            turns += [{"role": "user", "content": item[0]}, {"role": "assistant", "content": item[1]}]
        else:
            raise UnusableRowError("history holds neither turns nor pairs of question and answer")
    return turns + as_turns(prompt)


def as_turns(prompt: Any) -> list[Any]:
    return list(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]


def common_beginning(first: str, second: str) -> tuple[str, list[str]]:
    """The words with which two texts begin alike as the prompt, and the rest of each."""
    if first == second:
        raise UnusableRowError("identical responses")
    size = next(
        (at for at in range(min(len(first), len(second))) if first[at] != second[at]), min(len(first), len(second))
    )
    while size and not (first[size - 1].isspace() or first[size : size + 1].isspace()):
        size -= 1
    while size and first[size - 1].isspace():  # the space belongs to the reply
        size -= 1
    if not size:
        raise UnusableRowError("no prompt: chosen and rejected share no beginning")
    return first[:size], [first[size:], second[size:]]
