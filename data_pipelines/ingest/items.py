"""`--items FILE --on COLUMN`: the texts of what was judged, from another file than the judgments.

A column of the items that the row has not is there under its own name afterwards, one that it has as `items.NAME`.
Where
several items have one key (the answers of several models to one question), the row gets them all as the list `items`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.sources import paths
from data_pipelines.sources.reading.containers import files_in
from data_pipelines.sources.reading.lines import Layout, open_rows
from data_pipelines.sources.reading.streams import Item, Parsed, Reject
from data_pipelines.sources.recognize import wide_columns
from rmkit.errors import DataError, UsageError
from rmkit.ids import digest, file_sha256

KEYS = ("item", "item_id", "instance_id", "id", "trace_id", "run_id", "span_id", "question_id", "key")
NO_ITEM = "no row of --items has this key"


@dataclass
class Items:
    """Items by key. `columns` are the names under which their columns appear in joined rows."""

    on: str | None
    rows: Mapping[str, list[Mapping[str, Any]]]
    sha256: str
    key_columns: tuple[str, ...]
    columns: tuple[str, ...] = field(default=())

    @classmethod
    def load(cls, names: Sequence[str], on: str | None, layout: Layout) -> Items:
        """Raises DataError where a file cannot be read or holds no column to join by."""
        files: list[Path] = []
        for name in names:
            path = Path(name)
            files += files_in(path)[0] if path.is_dir() else [path]
        rows: list[Mapping[str, Any]] = []
        for path in files:
            rows += [item.value for item in open_rows(path, layout=layout).items if isinstance(item, Parsed)]
        if not rows:
            raise DataError(f"--items {', '.join(names)}: no rows")
        present = {name for row in rows for name in row}
        keys = tuple(name.strip() for name in (on or "").split(",") if name.strip())
        own = keys if keys and set(keys) <= present else ()
        if not own:
            own = next(((name,) for name in KEYS if name in present), ())
        if not own:
            raise UsageError(f"--items has no column {on or 'id'} to join by; it has: {', '.join(sorted(present))}")
        by_key: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_key.setdefault(_key(row, own), []).append(row)
        return cls(on, by_key, digest([file_sha256(path) for path in files]), own)

    def joined(self, items: Iterator[Item], wide: Sequence[str], *, is_gathered: bool = False) -> Iterator[Item]:
        """Rows with their item's columns; a row without an item is rejected. `wide` columns are items themselves: a row
        becomes one for each of them, with the cell as `preference`.
        """
        line = 0
        for item in items:
            if wide:  # several rows come of one line: they are counted anew
                item = item._replace(line=line + 1)
            line += 1
            if isinstance(item, Reject):
                yield item
                continue
            for place, row in enumerate(_melted(item.value, wide) if wide else [dict(item.value)]):
                line += place > 0
                item = item._replace(line=line) if wide else item
                key = self._key_of(row, has_item=is_gathered or bool(wide))
                matches = self.rows.get(key) if key is not None else None
                if key is None and self.on is None:
                    yield Parsed(item.line, row)  # a form may say which column is the item's
                elif matches is None:
                    yield Reject(item.line, NO_ITEM, str(key)[:200])
                else:
                    yield Parsed(item.line, self._with(row, matches))

    def _key_of(self, row: Mapping[str, Any], *, has_item: bool) -> str | None:
        names = [name.strip() for name in self.on.split(",")] if self.on else []
        if names and all(name in row for name in names):
            return _key(row, names)
        if names and not has_item:
            raise UsageError(f"--on {self.on}: the rows have no such column; they have: {', '.join(row)}")
        for path in DEFAULT_KEYS:
            value = paths.value_at(row, paths.parse(path))
            if value is not paths.MISSING and value is not None and str(value) in self.rows:
                return str(value)
        return str(row["item"]) if has_item and "item" in row else None

    def _with(self, row: dict[str, Any], matches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if len(matches) > 1:
            self.columns = ("items",)
            return {**row, "items": [dict(one) for one in matches]}
        own = {name: value for name, value in matches[0].items() if name not in self.key_columns}
        named = {(f"items.{name}" if name in row else name): value for name, value in own.items()}
        self.columns = tuple(sorted({*self.columns, *named}))
        return {**row, **named}


DEFAULT_KEYS = (
    *("item", "instance_id", "trace_id/observation_id", "trace_id", "traceId/observationId", "traceId", "run_id"),
    *("context.span_id", "span_id", "weave_item", "benchmark/task_id/exp_name", "question_id", "message_tree_id"),
)


def _key(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return "/".join(str(row.get(name)) for name in names if row.get(name) not in (None, ""))


def _melted(row: Mapping[str, Any], wide: Sequence[str]) -> list[dict[str, Any]]:
    columns = wide_columns(wide, list(row))
    rest = {name: value for name, value in row.items() if name not in columns}
    return [{**rest, "item": name, "preference": row[name]} for name in columns if row[name] not in (None, "")]
