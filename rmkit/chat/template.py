"""Chat templates: our own for tokenizers without one, dates pinned, nothing dropped without a word.

A template is a Jinja text over messages. What it renders must not depend on the day, or a reward would: the calls to
the renderer's clock are replaced in the text itself, so that every server which renders the saved template agrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from rmkit.chat.reasoning import reasoning_length
from rmkit.chat.tool_calls import json_text, parsed
from rmkit.errors import DataError
from rmkit.types import Message

PINNED_DATE = datetime(2024, 7, 26)
"""The day every template believes it is: the default that Llama 3's own template carries."""

Form = Literal["text", "object"]
"""What tool-call arguments are: JSON text, or the object that it says."""

DROPS_CALLS = "the chat template drops tool calls; a template with tools is needed"
DROPS_TOOLS = "the chat template drops the tools; a template with tools is needed"

THINK_TAG = re.compile(r"(</?think>)")

FALLBACK_TEMPLATE = (
    "{%- for tool in tools or [] -%}{{ 'Tool: ' + tool | tojson + '\\n\\n' }}{%- endfor -%}"
    "{%- for message in messages -%}"
    "{%- if not loop.first -%}{{ '\\n\\n' }}{%- endif -%}"
    "{{ message['role'] | capitalize }}{% if message['name'] %} ({{ message['name'] }}){% endif %}: "
    "{{- ' ' + message['content'] -}}"
    "{%- for call in message['tool_calls'] or [] -%}{{ '\\nCall: ' + call | tojson }}{%- endfor -%}"
    "{%- if message['role'] == 'assistant' and eos_token -%}{{ eos_token }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\\n\\nAssistant: ' }}{%- endif -%}"
)

_FALLBACK_BEFORE_EOS = FALLBACK_TEMPLATE.replace("and eos_token -", "and eos_token and not loop.last -")

_DATE_MACRO = "{%- macro strftime_now(form) -%}" + f"{PINNED_DATE:%Y-%m-%d}" + "{%- endmacro -%}"
_DATE_CALL = re.compile(r"strftime_now\(\s*(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)")


def pin_dates(template: str) -> str:
    """The template with every `strftime_now("...")` replaced by the pinned date in that format.

    A call whose format is computed gets the ISO date, from a macro that hides the renderer's own clock.
    """
    pinned = _DATE_CALL.sub(lambda call: repr(PINNED_DATE.strftime(call["format"])), template)
    if re.search(r"strftime_now\s*\(", pinned) and not pinned.startswith(_DATE_MACRO):
        return _DATE_MACRO + pinned
    return pinned


def own_template(tokenizer: Any) -> str:
    """The tokenizer's (default) template, else the fallback.

    Where the tokenizer itself ends every text with EOS (RoBERTa), the fallback leaves the last one to it: any server
    that renders the saved template and tokenizes the text then gets it once, as `Chat` does.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or (_FALLBACK_BEFORE_EOS if _ends_with_eos(tokenizer) else FALLBACK_TEMPLATE)


def _ends_with_eos(tokenizer: Any) -> bool:
    eos = tokenizer.eos_token_id
    return eos is not None and tokenizer("a")["input_ids"][-1:] == [eos]


def with_system(messages: Iterable[Message], system: str | None) -> tuple[Message, ...]:
    """The turns without empty system turns; where none is left, `system` is the first turn, unless it is None."""
    turns = tuple(message for message in messages if message.role != "system" or message.content.strip())
    if system is None or any(message.role == "system" for message in turns):
        return turns
    return (Message("system", system), *turns)


def as_template_dict(message: Message, *, arguments: Form = "text", reasoning: bool = False) -> dict[str, object]:
    """The turn as templates and OpenAI's interface take it: tool-call arguments as JSON text, or decoded where they are
    an object; `reasoning` adds it under each name that templates know."""
    by_key: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        by_key["name"] = message.name
    if message.tool_call_id:
        by_key["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        by_key["tool_calls"] = [_as_template_call(call, arguments) for call in message.tool_calls]
    if reasoning and message.reasoning:
        by_key |= dict.fromkeys(("reasoning_content", "thinking", "reasoning"), message.reasoning)
    return by_key


def _as_template_call(call: Mapping[str, Any], form: Form) -> dict[str, object]:
    function = call.get("function")
    if not isinstance(function, Mapping):
        return dict(call)
    arguments = function.get("arguments")
    if form == "object" and isinstance(arguments, str):
        decoded = parsed(arguments)
        arguments = decoded if isinstance(decoded, dict) else arguments
    elif form == "text" and isinstance(arguments, Mapping):
        arguments = json_text(arguments)
    return {**call, "function": {**function, "arguments": arguments}}


def check_nothing_dropped(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], text: str) -> None:
    """System turns, tool turns, tools and their calls are what templates drop without a word."""
    for message in messages:
        dropped = message.role in ("system", "tool") and message.content.strip() not in text
        if dropped and json_text(message.content)[1:-1] not in text:  # some write what a tool says as JSON
            raise DataError(f"the chat template drops or rewrites the {message.role} turn")
        if any(_name_of(call) not in text for call in message.tool_calls):
            raise DataError(DROPS_CALLS)
    if any(_name_of(tool) not in text for tool in tools):
        raise DataError(DROPS_TOOLS)


def check_response(messages: Sequence[Message], text: str) -> None:
    """Raises DataError where the text does not hold all that the turns of a response say and think."""
    for message in messages:
        if message.role != "assistant":
            continue
        inside = message.content[: reasoning_length(message.content)]
        if any(
            piece.strip() not in text for thought in (message.reasoning or "", inside) for piece in _pieces(thought)
        ):
            raise DataError("the chat template drops the response's reasoning; reasoning = 'strip' scores it without")
        if any(piece.strip() not in text for piece in _pieces(message.content)):
            raise DataError("the chat template drops or rewrites the response")


def _pieces(content: str) -> list[str]:
    return THINK_TAG.split(content)[::2]  # between the tags


def _name_of(call: Mapping[str, Any]) -> str:
    return str((call.get("function") or call).get("name", ""))
