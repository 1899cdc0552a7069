"""Potato's state of a user: labels by instance as [[{schema, name}, value]] or as an object. The texts are in the
task's data file: `--items FILE`.

A `scale` of -2 to 2 prefers left below zero; `ranking` is "B,D=A,C"; best-worst answers name the best and the worst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources.gathered.gather import Gather, Gathered
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.unit_builder import Row

LABELS = "instance_id_to_label_to_value"


def matches(sample: Sequence[Row]) -> bool:
    return all("user_id" in row and isinstance(row.get(LABELS), Mapping) for row in sample)


def rows(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    for row in file:
        for instance, labels in row[LABELS].items():
            yield {"instance_id": instance, "user_id": row["user_id"], **_labels(labels)}


def _labels(labels: Any) -> dict[str, Any]:
    """SCHEMA.NAME columns, as Potato's own export writes them."""
    if isinstance(labels, Mapping):
        pairs = [(name, value) for name, value in labels.items()]
    else:
        pairs = [(entry[0], entry[1]) for entry in labels or [] if isinstance(entry, list) and len(entry) == 2]
    result: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, Mapping):
            key = f"{key.get('schema')}.{key.get('name')}"
        if isinstance(value, Mapping):
            result |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            result[str(key)] = value
    return result


STATE = Gather("potato", "Potato's state of a user", matches, rows)
