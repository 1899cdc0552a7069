"""What trainers hand over (prompts, completions, columns side by side) as samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.clients.signal_client import Sample
from rmkit.signal.columns import as_text, value_at


def samples_of(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    *,
    lengths: Sequence[float] | None = None,
    group: str | None = None,
) -> list[Sample]:
    """[n] samples; `columns` that are lists of n are the dataset's, the others are left out.

    `lengths` are the completions' tokens, which chains read as `length`; `group` is a path to the id of a group.
    Raises DataError where prompts and completions do not go together.
    """
    n = len(prompts)
    if n != len(completions):
        raise DataError(f"{n} prompts and {len(completions)} completions do not go together")
    names = [name for name, values in columns.items() if isinstance(values, list | tuple) and len(values) == n]
    rows = [{name: columns[name][place] for name in names} for place in range(n)]
    return [
        Sample(
            prompt=prompt,
            completion=completion,
            row=row,
            columns={} if lengths is None else {"length": float(lengths[place])},
            group=None if group is None else as_text(value_at(row, group)),
        )
        for place, (prompt, completion, row) in enumerate(zip(prompts, completions, rows, strict=True))
    ]


def split(messages: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """A conversation before its first assistant turn, and from there on."""
    roles = [one.get("role") if isinstance(one, Mapping) else getattr(one, "role", None) for one in messages]
    start = roles.index("assistant") if "assistant" in roles else len(roles)
    return list(messages[:start]), list(messages[start:])
