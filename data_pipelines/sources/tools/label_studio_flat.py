"""Label Studio's other exports: JSON_MIN and CSV (a row an annotation, task data and one column a control), and one
file an annotation as its storage writes them, with the task inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.fields import split_fields
from data_pipelines.sources.source import Source
from data_pipelines.sources.tools.label_studio import tasks
from data_pipelines.sources.unit_builder import Row, Unit, require

_OWN = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time", "id", "annotation_comments", "agreement")


def is_flat(row: Row) -> bool:
    return "annotation_id" in row and "annotator" in row and "lead_time" in row


def flat(row: Row) -> Iterator[Unit]:
    """As the task that it is a row of: what is no control's column is the task's data."""
    others = {name: value for name, value in row.items() if name not in _OWN and value not in (None, "")}
    results = [one for name, value in others.items() if not _is_text(name, value) for one in _results(name, value)]
    controls = {one["from_name"] for one in results}
    data = {name: value for name, value in others.items() if name not in controls}
    _, texts, _ = split_fields(data)
    for one in results:
        one["to_name"] = ",".join(texts)
    annotation = {
        "completed_by": row.get("annotator"),
        "result": results,
        "created_at": row.get("updated_at") or row.get("created_at"),
    }
    yield from tasks({"id": row.get("id"), "data": data, "annotations": [annotation]})


def _is_text(name: str, value: Any) -> bool:
    return isinstance(value, str) and len(value) > 60


def _results(name: str, value: Any) -> list[dict[str, Any]]:
    """What a control's cell says; none for a column of the task."""
    items = value if isinstance(value, list) else [value]
    result: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, Mapping) and item.get("selected") in ("left", "right"):
            result.append({"type": "pairwise", "from_name": name, "value": {"selected": item["selected"]}})
        elif isinstance(item, Mapping) and "rating" in item:
            result.append({"type": "rating", "from_name": name, "value": {"rating": item["rating"]}})
        elif isinstance(item, Mapping) and "choices" in item:
            result.append({"type": "choices", "from_name": name, "value": {"choices": item["choices"]}})
    return result


def is_stored(row: Row) -> bool:
    task = row.get("task")
    return isinstance(row.get("result"), list) and isinstance(task, Mapping) and isinstance(task.get("data"), Mapping)


def stored(row: Row) -> Iterator[Unit]:
    """The annotation in its task."""
    require(is_stored(row), "result or task")
    annotation = {name: value for name, value in row.items() if name != "task"}
    yield from tasks({**row["task"], "annotations": [annotation]})


FLAT = Source(
    "label-studio-csv",
    "annotation_id, annotator, lead_time and the task's columns",
    is_flat,
    flat,
    labels="selected left or right",
)
STORED = Source("label-studio-storage", "result, task", is_stored, stored, labels="selected left or right")
