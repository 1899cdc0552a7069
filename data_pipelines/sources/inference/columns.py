"""What a sample of rows says of its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.sources.talks import is_talk, is_turn
from data_pipelines.sources.unit_builder import Row, moment
from data_pipelines.sources.verdicts import as_number, as_text


@dataclass
class Guess:
    """Roles with the reason for each, what stays open, and the kind of rater that the names speak for."""

    roles: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    kind: str = ""
    suggestion: str = ""
    notes: list[str] = field(default_factory=list)
    texts_left: list[str] = field(default_factory=list)  # columns of texts that play no role: one may be the prompt

    def take(self, role: str, path: str, why: str) -> None:
        self.roles[role], self.why[role] = path, why


@dataclass(frozen=True)
class Column:
    """What a sample says of a column."""

    name: str
    values: tuple[Any, ...]  # those that are not empty

    @property
    def counts(self) -> Counter[str]:
        return Counter(as_text(value) for value in self.values if not isinstance(value, Mapping | list))

    @property
    def mean_length(self) -> float:
        lengths = [len(value) if isinstance(value, str) else 40.0 for value in self.values]
        return sum(lengths) / len(lengths) if lengths else 0.0

    def is_reply(self) -> bool:
        """Whether most values could be a reply: a text, turns, or one object with a text."""
        fitting = sum(
            is_talk(value)
            or (isinstance(value, Mapping) and (is_turn(value) or any(isinstance(v, str) for v in value.values())))
            or isinstance(value, str)
            or (isinstance(value, list) and bool(value) and all(isinstance(item, str | Mapping) for item in value))
            for value in self.values
        )
        return bool(self.values) and 2 * fitting >= len(self.values)

    def is_time(self) -> bool:
        """Whether every value is a date or a time."""
        return bool(self.values) and all(isinstance(value, str) and moment(value) is not None for value in self.values)

    def is_number(self) -> bool:
        return bool(self.values) and all(as_number(value) is not None for value in self.values)


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """The columns of a sample by name, sorted."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            cells = values.setdefault(name, [])
            if value is not None and value != "" and value != []:
                cells.append(value)
    return {name: Column(name, tuple(values[name])) for name in sorted(values)}
