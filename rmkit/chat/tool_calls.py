"""Tools and calls of them, in one form whatever form they came in: OpenAI's, keys in one order.

Templates write schemas and calls into the text as they lie, and storage sorts keys: without one order the same row
would be one text from a file and another from the warehouse. Arguments are kept as JSON text, in which their own order
survives; `rmkit.chat.template` decodes them where a template wants an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rmkit.errors import DataError

HALF_PAIR = "a turn holds half of a surrogate pair, which is no text"

_KEY_ORDER = ("type", "function", "name", "description", "parameters", "properties", "required", "strict")


def read_tools(value: Any) -> tuple[Mapping[str, object], ...]:
    """Tool schemas (a list, or its JSON text) in OpenAI's form {"type": "function", "function": {...}}.

    Keys come in one order, whatever order they came in: those of `_KEY_ORDER` in that order, others sorted behind them.
    Raises DataError for what is no list of objects.
    """
    if isinstance(value, str):
        value = parsed(value)
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise DataError("tools must be a list of objects")
    tools = tuple(_tool(one) for one in value)
    json_text(tools)
    return tools


def read_tool_calls(calls: Any) -> Iterable[dict[str, object]]:
    """Tool calls (a list, its JSON text, or None) in OpenAI's form, keys in one order, arguments as JSON text.

    Raises DataError for what is no list of objects with a name.
    """
    if calls is None:
        return
    if isinstance(calls, str):
        calls = parsed(calls)
    if isinstance(calls, str | Mapping) or not isinstance(calls, Iterable):
        raise DataError("tool_calls is not a list of objects")
    for call in calls:
        if not isinstance(call, Mapping):
            call = call.model_dump() if hasattr(call, "model_dump") else None
        function = call.get("function", call) if call else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise DataError("a tool call is no object with a name")
        named = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
        arguments = _arguments(function.get("arguments", function.get("parameters")))
        yield {**named, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _arguments(value: Any) -> str:
    """JSON text; a text that is no JSON object is what the policy wrote, and stays."""
    if not isinstance(value, str):
        return json_text({} if value is None else value)
    arguments = parsed(value)
    return json_text(arguments) if isinstance(arguments, dict) else value


def _tool(tool: Any) -> dict[str, object]:
    if not isinstance(tool, Mapping):
        raise DataError("tools must be a list of objects")
    if "function" not in tool and "name" in tool:
        function = {key: value for key, value in tool.items() if key not in ("type", "input_schema")}
        if "input_schema" in tool:
            function["parameters"] = tool["input_schema"]
        tool = {"type": "function", "function": function}
    return _in_order(tool)  # type: ignore[no-any-return]


def _in_order(value: Any, keys: tuple[str, ...] = _KEY_ORDER) -> Any:
    if isinstance(value, Mapping):
        first = [key for key in keys if key in value]
        # below `properties` the keys are names of parameters
        return {
            key: _in_order(value[key], () if key == "properties" and keys else _KEY_ORDER)
            for key in (*first, *sorted(set(value) - set(first)))
        }
    return [_in_order(one) for one in value] if isinstance(value, list | tuple) else value


def parsed(text: str) -> object:
    """What a JSON text says; the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def json_text(value: Any) -> str:
    """JSON text of a value, its keys in their own order. Raises DataError for what is no JSON or no Unicode."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(HALF_PAIR) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError("a turn holds a value that is no JSON") from error
    return text
