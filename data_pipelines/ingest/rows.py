"""Rows of a file to batches of units: what can be used, and for every other row why not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from data_pipelines.ingest.tally import Tally
from data_pipelines.sources import plain
from data_pipelines.sources.reading.streams import (
    Item,
    Parsed,
    Reject,
    excerpt,
)
from data_pipelines.sources.reading.tables import batch_rows, table_rows
from data_pipelines.sources.recognize import Plan
from data_pipelines.sources.unit_builder import Unit, UnusableRowError
from rmkit.errors import DataError
from warehouse.write.bulk import pair_units
from warehouse.write.units import REJECT_SCHEMA, UNIT_SCHEMA, UNSTATED

BLOCK_ROWS = 16_384
BATCH_UNITS = 4_096
BATCH_CHARACTERS = 16 << 20
CONFLICT = "duplicate id with different content"
SHAPE = "not the shape of this format"
_SURPRISES = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Shard:
    """Rows of one file, or of one member of an archive, and how they are read.

    `tables` are the rows of a columnar file, to be read instead of `items` where the bulk route takes them.
    """

    name: str
    plan: Plan
    items: Iterable[Item]
    tables: Iterable[pa.Table | Reject] | None = None


@dataclass
class Counts:
    """What was read of a shard: rows, those rejected, units, and units that nobody judged."""

    rows: int = 0
    rejected: int = 0
    units: int = 0
    without_opinion: int = 0


class NothingUsableError(DataError):
    """No row of a load could be used."""


class UnitStream:
    """One pass over the shards of a load. `n_lines`, `n_rejected`, `reasons`, `shards` and `tally` are complete after
    the last batch.

    n_lines = rows with units + rejected rows, always. An id that comes again with other texts is rejected; with the
    same texts (in any order) the row is one more judgment of them, or a duplicate like any other. `line` counts
    through the shards. Memory: one batch, the rejects, and two integers an id.
    `rater` ("NAME:KIND") gave the labels whose rows do not say who did, and is of that kind wherever a row names it.
    """

    def __init__(self, shards: Iterable[Shard], *, path: str, rater: str | None = None):
        self.path = path
        self.n_lines = self.n_rejected = 0
        self.reasons: dict[str, int] = {}
        self.shards: dict[str, Counts] = {}
        self.tally = Tally()
        self._sources = shards
        name, _, kind = (rater or f"{UNSTATED}:").rpartition(":")
        self._rater, self._rater_kind = name or UNSTATED, kind or "unknown"
        self._rejects: list[pa.RecordBatch] = []
        self._waiting: list[Reject] = []
        self._contents: dict[int, int] = {}
        self._last = 0  # the highest line so far
        self._bulk: duckdb.DuckDBPyConnection | None = None  # the bulk route's own

    def batches(self) -> Iterator[pa.RecordBatch]:
        """UNIT_SCHEMA batches. Raises NothingUsableError at the end where not one row was usable."""
        try:
            yield from self._batches()
        finally:
            if self._bulk is not None:
                self._bulk.close()
                self._bulk = None

    def _batches(self) -> Iterator[pa.RecordBatch]:
        units: list[Unit] = []
        characters = 0
        for part in self._parts():
            if isinstance(part, pa.Table):
                yield from part.combine_chunks().to_batches()
                continue
            units += part
            characters += sum(
                len(u["prompt"]) + sum(len(answer["messages"]) for answer in u["responses"]) for u in part
            )
            if len(units) >= BATCH_UNITS or characters >= BATCH_CHARACTERS:
                yield pa.RecordBatch.from_pylist(units, schema=UNIT_SCHEMA)
                units, characters = [], 0
        if units:
            yield pa.RecordBatch.from_pylist(units, schema=UNIT_SCHEMA)
        if self.n_rejected == self.n_lines:
            raise NothingUsableError(f"{self.path}: nothing usable in {self.n_lines} rows{self._top()}")

    def _parts(self) -> Iterator[pa.Table | list[Unit]]:
        """Units as they come: tables from the fast lane, lists from the importer."""
        for shard in self._sources:
            self._plan, self._counts = shard.plan, self.shards.setdefault(shard.name, Counts())
            self._before = self._last
            if shard.tables is not None and shard.plan.fast is not None:
                yield from self._from_tables(shard.tables)
            else:
                yield from self._from_rows(table_rows(shard.tables) if shard.tables is not None else shard.items)

    def _from_tables(self, tables: Iterable[pa.Table | Reject]) -> Iterator[pa.Table | list[Unit]]:
        line = self._before
        for table in tables:
            if isinstance(table, Reject):
                yield self._units(table._replace(line=line + 1))
                line = self._last = line + 1
                continue
            named = table.rename_columns(list(self._renamed(dict.fromkeys(table.column_names))))
            if (ready := plain.from_table(named, line)) is not None:
                yield from self._from_table(ready)
            else:
                yield from self._from_rows(batch_rows(table, line), shift=0)
            line = self._last = line + len(table)

    def _renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row under the roles' names, for the fast lane; a column that has a role's name by chance is set aside."""
        names = self._plan.fast or {}
        if all(name == role for name, role in names.items()):
            return dict(row)
        taken = set(names.values())
        return {names.get(n, f"column {n}" if n in taken else n): value for n, value in row.items()}

    def _from_rows(self, items: Iterable[Item], *, shift: int | None = None) -> Iterator[pa.Table | list[Unit]]:
        fast: list[Parsed] = []
        characters = 0
        offset = self._before if shift is None else shift
        rename = self._plan.fast is not None and any(name != role for name, role in self._plan.fast.items())
        is_plain = self._plan.fast is not None and not self._plan.parsed
        for item in items:
            if offset:
                item = item._replace(line=item.line + offset)
            self._last = max(self._last, item.line)
            if is_plain and isinstance(item, Parsed):
                row = self._renamed(item.value) if rename else item.value
                if plain.is_plain(row):
                    fast.append(Parsed(item.line, row))
                    characters += sum(len(row[name]) for name in plain.TEXTS)
                    if len(fast) >= BLOCK_ROWS or characters >= BATCH_CHARACTERS:
                        yield from self._from_table(plain.from_rows(fast))
                        fast, characters = [], 0
                    continue
            yield self._units(item)
        if fast:
            yield from self._from_table(plain.from_rows(fast))

    def _from_table(self, table: pa.Table) -> Iterator[pa.Table | list[Unit]]:
        """Units of a table of plain pairs; what the bulk route hands back goes through the importer row by row."""
        if self._bulk is None:
            self._bulk = duckdb.connect(":memory:")
        units, left = pair_units(table, rater=self._rater, rater_kind=self._rater_kind, connection=self._bulk)
        self.n_lines += len(units)
        self._counts.rows += len(units)
        if table["source_row"].null_count < len(table):
            units = self._first_of_each_id(units)
        self._counts.units += len(units)
        self.tally.plain(len(units), self._rater, self._rater_kind)
        yield units
        for line, item in zip(left["line"].to_pylist(), batch_rows(left, 0), strict=True):
            row = self._raw(plain.as_row(item.value)) if isinstance(item, Parsed) else None
            yield self._units(item._replace(line=line) if row is None else Parsed(line, row))

    def _first_of_each_id(self, units: pa.Table) -> pa.Table:
        """The units less those whose id came before with other texts, which are rejected."""
        is_new = []
        texts = zip(units["prompt"].to_pylist(), units["responses"].to_pylist(), strict=True)
        for line, row_id, (prompt, answers) in zip(
            units["line"].to_pylist(), units["source_row"].to_pylist(), texts, strict=True
        ):
            content = [prompt, *sorted(answer["messages"] for answer in answers)]
            is_new.append(self._is_new(row_id, "\n".join(content)))
            if not is_new[-1]:
                self._reject(Reject(line, CONFLICT, excerpt(" ".join(content)), row_id))
        return units if all(is_new) else units.filter(pa.array(is_new))

    def _is_new(self, row_id: str | None, content: str) -> bool:
        """Whether an id is new, or stands for the same content as before."""
        return row_id is None or self._contents.setdefault(hash(row_id), hash(content)) == hash(content)

    def _raw(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of the fast lane under its own columns' names again."""
        own = {role: name for name, role in (self._plan.fast or {}).items()}
        return {own.get(name, name.removeprefix("column ")): value for name, value in row.items()}

    def rejects(self) -> pa.Table:
        """REJECT_SCHEMA rows, in the order they were met."""
        self._pack()
        return pa.Table.from_batches(self._rejects, REJECT_SCHEMA)

    def _top(self) -> str:
        top = sorted(self.reasons.items(), key=lambda pair: -pair[1])[:3]
        return f" ({'; '.join(f'{reason}: {count}' for reason, count in top)})" if top else ""

    def _units(self, item: Item) -> list[Unit]:
        self.n_lines += 1
        if isinstance(item, Reject):
            self._counts.rows += 1
            self._reject(item)
            return []
        self._counts.rows += 1
        try:
            units = list(self._plan.read(item.value))
            if not units:
                raise UnusableRowError("the row holds nothing to judge")
            if not self._is_new(units[0]["source_row"], _content(units)):
                raise UnusableRowError(CONFLICT)
        except (DataError, *_SURPRISES) as error:  # one odd row must not cost the file
            reason = str(error) if isinstance(error, DataError) else f"{SHAPE} ({type(error).__name__}: {error})"
            self._reject(Reject(item.line, reason, _shown(item.value), _row_id(item.value)))
            return []
        self._counts.units += len(units)
        for unit in units:
            unit["line"] = item.line
            for judgment in unit["judgments"]:
                if judgment["rater"] == UNSTATED:
                    kind = judgment["rater_kind"] if self._rater_kind == "unknown" else self._rater_kind
                    judgment["rater"], judgment["rater_kind"] = self._rater, kind
                elif judgment["rater"] == self._rater and self._rater_kind != "unknown":
                    judgment["rater_kind"] = self._rater_kind
            self._counts.without_opinion += not self.tally.add(unit)
        return units

    def _reject(self, reject: Reject) -> None:
        self.n_rejected += 1
        self._counts.rejected += 1
        self.reasons[reject.reason] = self.reasons.get(reject.reason, 0) + 1
        self._waiting.append(reject)
        if len(self._waiting) >= BATCH_UNITS:
            self._pack()

    def _pack(self) -> None:
        rows = [reject._asdict() for reject in self._waiting]
        self._rejects.append(pa.RecordBatch.from_pylist(rows, schema=REJECT_SCHEMA))
        self._waiting = []


def _content(units: list[Unit]) -> str:
    """The texts of a row, as the fast lane says them; who judged them how is no part of it."""
    return "\n".join(
        "\n".join([unit["prompt"], *sorted(answer["messages"] for answer in unit["responses"])]) for unit in units
    )


def _shown(row: Mapping[str, Any]) -> str:
    return excerpt(json.dumps(row, ensure_ascii=False, default=str))


def _row_id(row: Mapping[str, Any]) -> str | None:
    result = row.get("id")
    return str(result)[:200] if isinstance(result, str | int) else None
