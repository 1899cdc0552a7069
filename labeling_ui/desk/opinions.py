"""What a process model thinks of the steps of a project's items: for a person after their own answer, never before.

One file beside the items, written by `rmkit label opinions`; it never reaches a page or the API but through
`Desk.opinion`, which asks whether the person has answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from labeling_ui.desk.item_table import ItemTable, write_item_table

FILE = "opinions.arrow"
RIGHT = 0.5  # a step of at least this probability is right
_SCHEMA = pa.schema([("item", pa.int64()), ("steps", pa.list_(pa.float64())), ("unscored", pa.string())])


@dataclass(frozen=True, slots=True)
class Opinion:
    """`steps` [S] are the model's numbers, probabilities of being right where `scale` says so; none, and why, where it
    could not score. `model` and `fingerprint` say which version spoke."""

    model: str
    fingerprint: str
    scale: str
    steps: tuple[float, ...]
    unscored: str | None

    def as_json(self) -> dict[str, object]:
        """All of it, JSON-ready, with the first wrong step."""
        steps = [None if math.isnan(value) else value for value in self.steps]
        return asdict(self) | {"steps": steps, "first_wrong": self.first_wrong}

    @property
    def first_wrong(self) -> int | None:
        """The place (from 0) of the first step that is probably wrong; None without one, or where numbers are no
        probabilities."""
        if self.scale != "probability":
            return None
        return next((at for at, value in enumerate(self.steps) if value < RIGHT), None)


class Opinions:
    """The stored opinions of a project folder; empty where no model was asked."""

    def __init__(self, folder: Path) -> None:
        self._table = ItemTable(folder / FILE, _SCHEMA)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, number: int) -> bool:
        return number in self._table

    @property
    def fingerprint(self) -> str | None:
        """Of the model that was asked."""
        return self._table.facts.get("fingerprint")

    def of(self, number: int) -> Opinion | None:
        """What the model said of an item, None where it was not asked."""
        if (row := self._table.row(number)) is None:
            return None
        steps = tuple(math.nan if value is None else value for value in row["steps"] or ())
        return Opinion(**self._table.facts, steps=steps, unscored=row["unscored"])

    def rows(self) -> list[dict[str, Any]]:
        """All of them, as `write_opinions` takes them."""
        return self._table.rows()


def write_opinions(folder: Path, rows: list[dict[str, Any]], facts: Mapping[str, str]) -> None:
    """Replace the stored opinions at once: rows of item, steps and unscored; facts are model, fingerprint and scale."""
    write_item_table(folder / FILE, _SCHEMA, rows, facts)
