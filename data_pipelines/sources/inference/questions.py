"""What is asked where a table is not clear: what was seen, what is open, and a line to type."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources.form import shape_of
from data_pipelines.sources.inference.columns import Column, Guess, columns_of
from data_pipelines.sources.inference.labels import open_values
from data_pipelines.sources.unit_builder import Row
from data_pipelines.sources.verdicts import as_number, as_text

FEW = 7  # labels at most


def counted(counts: Counter[str], limit: int = 10) -> str:
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
    more = f" and {len(counts) - limit} more" if len(counts) > limit else ""
    return ", ".join(f"{value!r} {count}" for value, count in top) + more


def meaning_needed(values: Sequence[str]) -> str:
    """What to type for labels whose meaning nobody said; the meanings are left to be filled in."""
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if len(numbers) == len(values) and min(numbers, default=0) < 0:
        why = "a signed scale, but which reply its sign prefers is not said"
    elif len(numbers) == len(values):
        why = "numbers mean opposite things in different forms"
    else:
        why = "which reply they name is not known"
    return f"{why}; say it with --values {shlex.quote(open_values(values))}, a, b, tie or none for each ?"


def undecided(path: object, rows: Sequence[Row], own: Guess) -> str:
    """What was seen, what is open, and a line to type, in one message."""
    columns = columns_of(rows)
    seen = "; ".join(f"{name} ({_values(column)})" for name, column in list(columns.items())[:12])
    more = f"; {len(columns) - 12} more columns" if len(columns) > 12 else ""
    questions = list(own.open)
    shape = shape_of(own.roles)
    if shape is None and not questions:
        questions.append("which columns are the prompt and the replies")
    elif shape is not None and "prompt" not in own.roles and not any("prompt" in one for one in questions):
        questions.append("which column is the prompt")
    if (
        shape == ("response_a", "response_b")
        and "preference" not in own.roles
        and not any("verdict" in q for q in questions)
    ):
        questions.append("which column says which reply is better")
    roles = {
        "prompt": "COLUMN",
        **(dict.fromkeys(("chosen", "rejected"), "COLUMN") if shape is None else {}),
        **own.roles,
    }
    if shape == ("response_a", "response_b") and "preference" not in roles:
        roles["preference"] = "COLUMN"
    line = ",".join(f"{role}={text}" for role, text in roles.items() if role in _ASKED)
    meanings = "a, b, tie or none" if shape == ("response_a", "response_b") else "1 for good, 0 for bad"
    suggestion = f" {own.suggestion} (for each ? write {meanings})" if own.suggestion else ""
    return (
        f"{path}: no known format has the columns {', '.join(list(columns)[:20]) or '(none)'}; not clear: "
        f"{'; '.join(questions)}. Seen: {seen}{more}. Name them, e.g. --map {shlex.quote(line)}{suggestion}, "
        f"or a form with --format (rmkit ingest --forms lists them){_elsewhere(rows)}"
    )


def _elsewhere(rows: Sequence[Row]) -> str:
    """Where the rows may lie in a document that was read as a single record."""
    lists = [f"--records {path}" for path in _lists_in(rows[0], "")] if len(rows) == 1 else []
    return f"; rows may lie deeper: {' or '.join(lists[:3])}" if lists else ""


def _lists_in(value: Mapping[str, Any], before: str) -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(one, Mapping) for one in inner):
            yield before + name
        elif isinstance(inner, Mapping):
            yield from _lists_in(inner, f"{before}{name}.")


_ASKED = {
    "prompt",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
    "preference",
    "responses",
    "scores",
    "ranks",
    "response",
    "score",
    "label",
    "rater",
}


def _values(column: Column) -> str:
    """Three values of a column, or all of a few with their counts."""
    is_label = 0 < len(column.counts) <= FEW < len(column.values) and max(map(len, column.counts)) <= 24
    if is_label:
        return counted(column.counts)
    distinct = list(dict.fromkeys(map(_short, column.values)))
    return ", ".join(distinct[:3])


def _short(value: Any) -> str:
    text = as_text(value) if not isinstance(value, Mapping | list) else type(value).__name__
    return repr(text[:24] + "..." if len(text) > 24 else text)
