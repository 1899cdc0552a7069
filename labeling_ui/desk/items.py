"""What a project shows: immutable parts of memory-mapped Arrow, so a hundred thousand items cost no memory.

A part is written once, from a dataset version or from queued findings, and never changed: an item is its number. Who
wrote a response is not in here at all; what must stay hidden until the answer (`gold`, `evidence`) never leaves the
write path.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rmkit.atomic import draft_file
from rmkit.errors import DataError
from rmkit.ids import parse_messages
from rmkit.types import Conversation

ITEM_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),  # the warehouse's content hash
        ("kind", pa.string()),
        ("prompt", pa.large_string()),
        ("responses", pa.list_(pa.large_string())),
        ("step_ends", pa.list_(pa.int32())),
        ("rubric", pa.large_string()),
        ("gold", pa.string()),  # JSON: {"ranks" | "step_labels" | "scores": ...} in stored order, null for most
        ("priority", pa.float64()),  # weight of being drawn; null where the project's strategy decides
        ("reason", pa.string()),
        ("evidence", pa.string()),  # JSON
    ]
)
_PART = "items-{:04d}.arrow"


@dataclass(frozen=True, slots=True)
class Item:
    """One unit to judge; responses in stored order. `gold` and `evidence` are for the write path only."""

    number: int
    unit: str
    kind: str
    prompt: Conversation
    responses: tuple[Conversation, ...]
    step_ends: tuple[int, ...]
    rubric: str | None
    gold: Mapping[str, Any] | None
    reason: str | None
    evidence: Mapping[str, Any]

    @property
    def steps(self) -> list[str]:
        """The only response cut at its step ends."""
        text = "\n\n".join(message.content for message in self.responses[0] if message.role == "assistant")
        starts = (0, *self.step_ends[:-1])
        return [text[start:end].strip() for start, end in zip(starts, self.step_ends, strict=True)]


class Items:
    """The items of a project folder, by number; cheap to open and safe to share among threads."""

    def __init__(self, folder: Path, known: Mapping[int, Mapping[str, Any]] | None = None) -> None:
        """`known` are answers that leads have added since the items were written, by number."""
        paths = sorted(folder.glob(_PART.replace("{:04d}", "*")))
        if not paths:
            raise DataError(f"{folder} has no items; add some with: rmkit label add")
        self._parts = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
        self._ends = list(accumulate(part.num_rows for part in self._parts))
        self._known = dict(known or {})

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Item:
        if not 0 <= number < len(self):
            raise DataError(f"no item {number}; the project has {len(self)}")
        part = bisect.bisect_right(self._ends, number)
        row = self._parts[part].slice(number - (self._ends[part - 1] if part else 0), 1).to_pylist()[0]
        return Item(
            number=number,
            unit=row["unit"],
            kind=row["kind"],
            prompt=parse_messages(row["prompt"]),
            responses=tuple(parse_messages(text) for text in row["responses"] or ()),
            step_ends=tuple(row["step_ends"] or ()),
            rubric=row["rubric"],
            gold=self._known.get(number) or (json.loads(row["gold"]) if row["gold"] else None),
            reason=row["reason"],
            evidence=json.loads(row["evidence"]) if row["evidence"] else {},
        )

    def lengths(self, number: int) -> list[int]:
        """Characters of each response, without reading the rest of the item."""
        responses = self._cell(number, "responses") or ()
        return [sum(len(turn["content"]) for turn in json.loads(text)) for text in responses]

    def gold(self, number: int) -> Mapping[str, object] | None:
        """The known answer alone."""
        if number in self._known:
            return self._known[number]
        summary = self._cell(number, "gold")
        return json.loads(summary) if summary else None

    def with_gold(self) -> NDArray[np.int64]:
        """Numbers of the items with a known answer, ascending."""
        own = np.flatnonzero(self.column("gold").is_valid().to_numpy())
        return np.union1d(own, np.fromiter(self._known, np.int64, len(self._known)))

    def _cell(self, number: int, name: str) -> Any:
        part = bisect.bisect_right(self._ends, number)
        return self._parts[part][name][number - (self._ends[part - 1] if part else 0)].as_py()

    def table(self) -> pa.Table:
        """All items in ITEM_SCHEMA, still memory-mapped."""
        return pa.concat_tables(self._parts)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all items, without touching the texts."""
        return pa.chunked_array(
            [chunk for part in self._parts for chunk in part[name].chunks], ITEM_SCHEMA.field(name).type
        )


def add_part(folder: Path, rows: pa.Table | Iterable[Mapping[str, Any]]) -> int:
    """Write one more part of items; how many it holds. Units that an earlier part holds are left out."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=ITEM_SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob(_PART.replace("{:04d}", "*"))))
    if number:
        known = set(Items(folder).column("unit").to_pylist())
        table = table.filter(pa.array([unit not in known for unit in table["unit"].to_pylist()], pa.bool_()))
    if not table.num_rows:
        return 0
    target = folder / _PART.format(number + 1)
    with draft_file(target) as draft, pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, ITEM_SCHEMA) as writer:
        writer.write_table(table.select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA), max_chunksize=4096)
    return int(table.num_rows)
