"""The fast lane: rows with prompt, chosen and rejected go to the warehouse's bulk route a block at a time.

That route takes only what is surely usable and hands the rest back, so each fault still gets its reason from the
importer, row by row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.sources.reading.streams import (
    Parsed,
)
from data_pipelines.sources.unit_builder import Row, json_object, rest, split_name

TEXTS = ("prompt", "chosen", "rejected")
_PASSED_ON = ("subset", "split", "license")
_SPECIAL = {
    *("margin", "rater", "rater_kind", "rationale", "chosen_model", "rejected_model", "models", "images", "image"),
    *("system", "history", "tools", "rubric", "reference", "score_a", "score_b", "scores", "time", "confidence"),
    *("duration", "language", "shown_order", "edit"),
}
_MARKS = ("[", "{", "\n", " ", "H", "\ufeff")  # how a prompt that is more than one text may begin


def is_plain(row: Row) -> bool:
    """Whether a row needs nothing that the bulk route does not do."""
    return (
        all(isinstance(row.get(name), str) for name in TEXTS)
        and _SPECIAL.isdisjoint(row)
        and all(row.get(name) is None or isinstance(row[name], str) for name in _PASSED_ON)
        and not is_marked(row["prompt"])
        and row["chosen"][:1] != "["
    )


def is_marked(prompt: str) -> bool:
    """Whether a prompt may be a talk with marks, or JSON."""
    return (prompt[:1] in _MARKS and (prompt.lstrip()[:6] == "Human:" or prompt[:1] == "[")) or "<extra_id_1>" in prompt


def from_rows(items: Sequence[Parsed]) -> pa.Table:
    """The table that `warehouse.write.bulk.pair_units` takes, of plain rows."""
    columns = {name: pa.array([item.value[name] for item in items], pa.large_string()) for name in TEXTS}
    used = ("id", *TEXTS, *_PASSED_ON)
    metas = [rest(item.value, *used) for item in items]
    return pa.table(
        {
            "line": pa.array([item.line for item in items], pa.int64()),
            **columns,
            "source_row": _texts([item.value.get("id") for item in items]),
            "subset": _texts([item.value.get("subset") for item in items]),
            "split": _texts([split_name(item.value.get("split")) for item in items]),
            "license": _texts([item.value.get("license") for item in items]),
            "meta": _texts([json_object(meta) if meta else None for meta in metas]),
        }
    )


def _texts(values: Sequence[object]) -> pa.Array:
    return pa.array([None if value is None or value == "" else str(value) for value in values], pa.string())


def from_table(table: pa.Table, before: int) -> pa.Table | None:
    """The same from a columnar file's own columns, `before` rows into it; None where rows must be looked at singly."""
    names = set(table.column_names)
    if not names.issuperset(TEXTS) or not _SPECIAL.isdisjoint(names) or len(names) < table.num_columns:
        return None
    optional = {name: table[name] for name in ("id", *_PASSED_ON) if name in names}
    if not all(_is_text(column.type) or pa.types.is_integer(column.type) for column in optional.values()):
        return None
    if any(_is_text(table[name].type) and pc.any(pc.starts_with(table[name], "[")).as_py() for name in TEXTS):
        return None
    if _is_text(table["prompt"].type) and any(
        pc.any(pc.match_substring_regex(table["prompt"], pattern)).as_py()
        for pattern in (r"^\s*Human:", "<extra_id_1>")
    ):
        return None
    texts = {name: _or_null(column) for name, column in optional.items()}
    if "split" in texts:
        texts["split"] = pa.array([split_name(value) for value in texts["split"].to_pylist()], pa.string())
    if "id" in texts:
        texts["source_row"] = texts.pop("id")
    others = [name for name in table.column_names if name not in (*TEXTS, "id", *_PASSED_ON)]
    metas = [rest(row) for row in table.select(others).to_pylist()] if others else [{}] * len(table)
    inputs = {
        "line": pa.array(range(before + 1, before + 1 + len(table)), pa.int64()),
        **{name: table[name] for name in TEXTS},
        "source_row": pa.nulls(len(table), pa.string()),
        "meta": _texts([json_object(meta) if meta else None for meta in metas]),
    }
    return pa.table(inputs | texts)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _or_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    text = column.cast(pa.string())
    return pc.if_else(pc.equal(text, ""), None, text)


def as_row(value: Row) -> dict[str, Any]:
    """The row behind a row of such a table."""
    named = {name: value.get(name) for name in (*TEXTS, *_PASSED_ON)}
    meta = json.loads(value["meta"]) if value.get("meta") else {}
    names = {name: item for name, item in named.items() if item is not None}
    return meta | names | ({"id": value["source_row"]} if value.get("source_row") is not None else {})
