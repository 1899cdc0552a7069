"""A chain (`rmkit.shaping`) over the completions of a request or of a gathered group, and why a result is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rmkit.errors import DataError, unknown
from rmkit.shaping import Chain, Group
from rmkit.signal.mix import MODEL

Place = tuple[int, int]  # item, completion
Row = dict[str, Any]  # one completion's columns by name
Shaped = float | list[float | None] | str  # a number, one for each part, or why there is none


def shape(chain: Chain, rows: Sequence[tuple[str, Row]]) -> list[Shaped]:
    """What the chain makes of completions, each with its group's name.

    Raises DataError for a column that the chain needs and none of them has, and for one that does not fit.
    """
    names = [name for name in chain.needs if name != "group"]
    for name in names:
        if not any(name in row for _, row in rows):
            known = sorted({key for _, row in rows for key in row})
            raise DataError(f"the chain needs a column that did not come: {unknown('column', name, known)}")
    columns = {name: [row.get(name) for _, row in rows] for name in dict.fromkeys((MODEL, *names))}
    columns["group"] = [group for group, _ in rows]
    shaped = chain.apply(Group.of(columns))[MODEL]
    present = Counter(group for group, row in rows if row.get(MODEL) is not None)
    return [
        _why(row, present[group]) if value is None else value for value, (group, row) in zip(shaped, rows, strict=True)
    ]


def _why(row: Row, present: int) -> str:
    if row.get(MODEL) is None:
        return "its reward is missing"
    if present > 1:
        return "the transformed reward is too large for a number"
    return "the group is too small for this transform"
