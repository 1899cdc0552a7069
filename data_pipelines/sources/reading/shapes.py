"""One JSON document that holds rows: keyed by id, a list under a name, columns, or one record.

{"id1": {...}, "id2": {...}}               rows by id, the key becomes `id` where a row has none
{"data": [{...}]}                          also rows, records, examples, items, train, ...
{"rows": [{"row": {...}}]}                 as the hub's viewer gives them
{"prompt": {"0": ...}, "chosen": {...}}    columns, as pandas writes them; also lists of one length
{"columns": [...], "data": [[...]]}        pandas' split orient
{...}                                      one record
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipelines.sources import paths
from rmkit.errors import DataError, UsageError

LISTS = (
    "data",
    "rows",
    "records",
    "examples",
    "items",
    "train",
    "results",
    "annotations",
    "test",
    "validation",
    "instances",
)
_ROLES = ("role", "from")


def rows_of(document: Any, *, records: str | None = None) -> list[Any]:
    """The rows in a document, at the path `records` where it is given. Raises UsageError where none lie there."""
    if records is not None:
        place = paths.value_at(document, paths.parse(records)) if isinstance(document, Mapping) else document
        if isinstance(place, Mapping):
            return _keyed(place)
        if not isinstance(place, list):
            raise UsageError(f"--records {records}: no list of rows lies there")
        return place
    if isinstance(document, list):
        return document
    if not isinstance(document, Mapping):
        raise DataError("the document is neither an object nor an array")
    if isinstance(document.get("columns"), list) and _is_matrix(document.get("data"), len(document["columns"])):
        return [dict(zip(document["columns"], cells, strict=True)) for cells in document["data"]]
    lists = [name for name in LISTS if isinstance(document.get(name), list) and _are_rows(document[name])]
    if lists and not any(isinstance(value, str) and len(value) > 200 for value in document.values()):
        return [row for name in lists for row in _unwrapped(document[name], name if len(lists) > 1 else None)]
    values = list(document.values())
    if len(values) > 1 and all(isinstance(value, Mapping) and value for value in values):
        if all(all(str(key).isdigit() for key in value) for value in values):
            keys = sorted({key for value in values for key in value}, key=int)
            return [{name: column.get(key) for name, column in document.items()} for key in keys]
        names = [set(value) for value in values]
        shared = set.intersection(*names)
        if 2 * len(shared) >= max(map(len, names)):
            return _keyed(document)
    sizes = {len(value) if isinstance(value, list) else -1 for value in values}
    if (
        len(values) > 1
        and len(sizes) == 1
        and min(sizes) > 0
        and all(_plain(item) for value in values for item in value)
    ):
        return [dict(zip(document, cells, strict=True)) for cells in zip(*values, strict=True)]
    return [document]


def _plain(item: Any) -> bool:
    return item is None or isinstance(item, str | int | float)


def _keyed(document: Mapping[str, Any]) -> list[Any]:
    return [row if not isinstance(row, Mapping) or "id" in row else {"id": key, **row} for key, row in document.items()]


def _are_rows(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(row, Mapping) and not any(name in row for name in _ROLES) for row in value)


def _unwrapped(rows: list[Any], split: str | None) -> list[Any]:
    """Rows as the hub's viewer wraps them, unwrapped; those of several lists bring the list's name as their split."""
    if all(set(row) >= {"row"} and isinstance(row["row"], Mapping) for row in rows):
        rows = [row["row"] for row in rows]
    if split in ("train", "test", "validation"):
        return [row if "split" in row else {**row, "split": split} for row in rows]
    return rows


def _is_matrix(value: Any, width: int) -> bool:
    return isinstance(value, list) and all(isinstance(cells, list) and len(cells) == width for cells in value)
