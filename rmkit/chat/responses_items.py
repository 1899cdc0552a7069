"""Items of OpenAI's Responses API as turns: what one assistant turn thinks, says and calls are several items there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rmkit.errors import DataError

ITEM_FIELDS = ("arguments", "call_id", "output", "summary")


def with_items_as_turns(values: Iterable[Any]) -> Iterator[object]:
    """The turns, with neighboring items of one assistant turn put together; turns of other forms come out as they are.

    Raises DataError for items of other kinds (searches, images, calls of computers).
    """
    turn: dict[str, Any] | None = None
    for value in values:
        kind = value.get("type") if isinstance(value, Mapping) and not value.get("from") else None
        match kind:
            case "reasoning":
                if turn:
                    yield turn
                turn = {"role": "assistant", "reasoning": value.get("content") or value.get("summary")}
            case "function_call":
                call = {"id": value.get("call_id"), "name": value.get("name"), "arguments": value.get("arguments")}
                turn = turn or {"role": "assistant"}
                turn["tool_calls"] = [*turn.get("tool_calls", ()), call]
            case "message" if value.get("role") == "assistant":
                if turn and ("content" in turn or "tool_calls" in turn):
                    yield turn
                    turn = None
                turn = {**value, **(turn or {})}
            case _:
                if turn:
                    yield turn
                turn = None
                if kind == "function_call_output":
                    yield {"role": "tool", "content": value.get("output"), "tool_call_id": value.get("call_id")}
                elif isinstance(value, Mapping) and kind not in (None, "message") and not value.get("role"):
                    raise DataError("an item of the conversation is neither a message nor a tool call")
                else:
                    yield value
    if turn:
        yield turn
