"""The page of a loop: its settings, and every number of every round in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_pipelines.loops.loop import Loop
from data_pipelines.loops.records import StepRecord


def page(loop: Loop, data: str, records: Sequence[StepRecord], taken: Sequence[bool], *, usd: float) -> str:
    """Markdown. A number that a round does not have is left empty; rounds that were undone are marked."""
    rounds = sorted({record.round for record in records})
    table: dict[str, dict[int, str]] = {}
    for record in records:
        for step, facts in record.facts.items():
            for name, value in facts.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    table.setdefault(f"{step}: {name.replace('_', ' ')}", {})[record.round] = number(value)
    table |= {
        "dataset version": {one.round: one.version for one in records if one.version},
        "seconds": {at: number(sum(one.seconds for one in records if one.round == at)) for at in rounds},
    }
    heads = [_head(at, taken) for at in rounds]
    lines = [f"# Loop {loop.name} on {data}", "", loop.description, ""]
    lines += [
        f"{len(taken)} of {loop.rounds} rounds are done." + (f" Sampling has cost ${usd:.4g}." if usd else ""),
        "",
    ]
    lines += [f"| | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(rounds)}"]
    lines += [f"| {name} | {' | '.join(row.get(at, '') for at in rounds)} |" for name, row in table.items()]
    lines += [
        "",
        "Settings: " + ", ".join(f"{name} {value}" for name, value in loop.names.items() if value != "") + ".",
    ]
    return "\n".join(lines) + "\n"


def number(value: Any) -> str:
    """Four digits, whole numbers whole."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _head(at: int, taken: Sequence[bool]) -> str:
    if at == 0:
        return "before"
    return f"round {at}" + ("" if at > len(taken) or taken[at - 1] else " (undone)")
