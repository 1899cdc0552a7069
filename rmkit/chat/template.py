"""Chat templates: our own for tokenizers without one, dates pinned, nothing dropped without a word.

A template is a Jinja text over messages. What it renders must not depend on the day, or a reward would: the calls to
the renderer's clock are replaced in the text itself, so that every server which renders the saved template agrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rmkit.errors import DataError
from rmkit.types import Message

PINNED_DATE = datetime(2024, 7, 26)
"""The day every template believes it is: the default that Llama 3's own template carries."""

FALLBACK_TEMPLATE = (
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


def without_empty_system(messages: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(message for message in messages if message.role != "system" or message.content.strip())


def as_template_dict(message: Message) -> dict[str, Any]:
    by_key: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        by_key["name"] = message.name
    if message.tool_call_id:
        by_key["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        by_key["tool_calls"] = [dict(call) for call in message.tool_calls]
    return by_key


def check_nothing_dropped(messages: Sequence[Message], text: str) -> None:
    """System turns, tool turns and tool calls are what templates drop without a word."""
    for message in messages:
        if message.role in ("system", "tool") and message.content.strip() not in text:
            raise DataError(f"the chat template drops or rewrites the {message.role} turn {message.content[:40]!r}")
        for call in message.tool_calls:
            name = str((call.get("function") or call).get("name", ""))
            if name not in text:
                raise DataError(f"the chat template drops the tool call {name!r}; a template with tools is needed")
