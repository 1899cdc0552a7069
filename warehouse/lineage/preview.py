"""Short, readable facts about examples: their hash, label and how the prompt begins."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import duckdb

from warehouse.sql import run

ERASED = "[erased]"


def excerpts(connection: duckdb.DuckDBPyConnection, example_ids: Collection[int]) -> dict[int, dict[str, str]]:
    """example_id -> {"id": hex hash, "label": text, "prompt": excerpt}."""
    rows = run(
        connection,
        "SELECT example_id, replace(e.h::VARCHAR, '-', ''), e.p, e.ranks, e.method, p.messages FROM example e "
        "JOIN unit USING (unit_id) JOIN prompt p USING (prompt_id) WHERE list_contains($1, example_id)",
        [sorted(set(example_ids))],
    )
    return {
        key: {"id": h, "label": label_text(p, ranks, method), "prompt": shorten(transcript(messages), 70)}
        for key, h, p, ranks, method, messages in rows
    }


def label_text(p: Sequence[float] | None, ranks: Sequence[int | None] | None, method: str) -> str:
    """A label in a few characters: probabilities of being best, else ranks."""
    if p is not None:
        return f"p={'/'.join(f'{x:.2f}' for x in p)} ({method})"
    if ranks is not None:
        return f"ranks={'/'.join('-' if rank is None else str(rank) for rank in ranks)} ({method})"
    return f"({method})"


def transcript(messages: str | None) -> str:
    """Canonical JSON messages as plain text, each turn after its role; a lone user or assistant turn without it."""
    if messages is None:
        return ERASED
    turns: list[dict[str, Any]] = json.loads(messages)
    if len(turns) == 1 and turns[0]["role"] in ("user", "assistant"):
        return _turn_text(turns[0])
    return "\n".join(f"{turn['role']}: {_turn_text(turn)}" for turn in turns)


def _turn_text(turn: Mapping[str, Any]) -> str:
    """What a turn thinks, says and calls."""
    functions = [call.get("function") or call for call in turn.get("tool_calls", ())]
    calls = [f"(calls {one.get('name')} {one.get('arguments')})" for one in functions]
    thought = [f"(thinks: {turn['reasoning']})"] if turn.get("reasoning") else []
    return "\n".join(part for part in (*thought, str(turn["content"]), *calls) if part)


def shorten(text: str, n: int) -> str:
    """One line of at most `n` characters: the end is kept too, for that is where a conversation's last turn is."""
    flat = " ".join(text.split())
    return flat if len(flat) <= n else f"{flat[: n // 2]} … {flat[-(n - n // 2 - 3) :]}"
