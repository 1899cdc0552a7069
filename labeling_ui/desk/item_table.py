"""What is known of some items beside the items themselves: an Arrow file of a project folder, a row for each of them.

The file is replaced at once and memory-mapped, as the items are; which model or people it comes from stands in its
metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmkit.atomic import draft_file


class ItemTable:
    """The rows of a file, found by item number; empty where there is no file. `facts` is its metadata."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all() if path.is_file() else schema.empty_table()
        self.facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        self._table, self._items = table, table["item"].to_numpy()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, number: int) -> bool:
        return self._at(number) is not None

    def row(self, number: int) -> dict[str, Any] | None:
        """The item's row, None where it has none."""
        if (at := self._at(number)) is None:
            return None
        return {name: self._table[name][at].as_py() for name in self._table.column_names}

    def rows(self) -> list[dict[str, Any]]:
        """All rows, by item number."""
        return list(self._table.to_pylist())

    def _at(self, number: int) -> int | None:
        at = int(np.searchsorted(self._items, number))
        return at if at < len(self._items) and self._items[at] == number else None


def write_item_table(
    path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], facts: Mapping[str, str]
) -> None:
    """Replace the file at once; rows in any order, at most one for each item."""
    ordered = sorted(map(dict, rows), key=lambda row: row["item"])
    table = pa.Table.from_pylist(ordered, schema=schema.with_metadata(dict(facts)))
    with draft_file(path) as draft, pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
