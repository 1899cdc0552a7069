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

import numpy as np
import pyarrow as pa

from rmkit.atomic import draft_file

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
    """The stored opinions of a project folder, memory-mapped; empty where no model was asked."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        self._table = _SCHEMA.empty_table()
        if path.is_file():
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._facts = {key.decode(): value.decode() for key, value in (self._table.schema.metadata or {}).items()}
        self._items = self._table["item"].to_numpy()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, number: int) -> bool:
        return self._at(number) is not None

    @property
    def fingerprint(self) -> str | None:
        """Of the model that was asked."""
        return self._facts.get("fingerprint")

    def of(self, number: int) -> Opinion | None:
        """What the model said of an item, None where it was not asked."""
        if (at := self._at(number)) is None:
            return None
        steps = tuple(math.nan if value is None else value for value in self._table["steps"][at].as_py() or ())
        return Opinion(**self._facts, steps=steps, unscored=self._table["unscored"][at].as_py())

    def rows(self) -> list[dict[str, Any]]:
        """All of them, as `write_opinions` takes them."""
        return list(self._table.to_pylist())

    def _at(self, number: int) -> int | None:
        at = int(np.searchsorted(self._items, number))
        return at if at < len(self._items) and self._items[at] == number else None


def write_opinions(folder: Path, rows: list[dict[str, Any]], facts: Mapping[str, str]) -> None:
    """Replace the stored opinions at once: rows of item, steps and unscored; facts are model, fingerprint and scale."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["item"]), schema=_SCHEMA.with_metadata(dict(facts)))
    with (
        draft_file(folder / FILE) as draft,
        pa.OSFile(str(draft), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
