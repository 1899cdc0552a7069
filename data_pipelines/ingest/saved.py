"""Saved maps: how a file was read, as a TOML that reads the next delivery and refuses one that drifted.

form = "generic"
columns = ["question", "left", "right", "winner"]   # all that were there
values_seen = ["left", "right", "tie"]              # of the label column

[roles]
prompt = "question"
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines.ingest.reading import Reading
from data_pipelines.sources import paths
from data_pipelines.sources.recognize import Plan
from data_pipelines.sources.verdicts import as_text
from rmkit import config
from rmkit.errors import ConfigError, DataError

_OPTIONS = (
    "values",
    "wide",
    "on",
    "rater",
    "rater_kind",
    "split_text",
    "encoding",
    "delimiter",
    "header_rows",
    "records",
    "sheet",
)
MAX_VALUES = 50


def save(path: Path, sample: Sequence[Mapping[str, Any]], plan: Plan, reading: Reading) -> None:
    """Write the map of a load, with the columns and labels that its sample had."""
    columns = sorted({name for row in sample for name in row})
    lines = [f"form = {json.dumps(plan.name)}", f"columns = {json.dumps(columns, ensure_ascii=False)}"]
    if values := _labels(plan, sample):
        lines.append(f"values_seen = {json.dumps(sorted(values), ensure_ascii=False)}")
    for name in _OPTIONS:
        value = getattr(reading, name)
        if value not in (None, ()):
            lines.append(
                f"{name} = {json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)}"
            )
    if plan.form is not None:
        lines += ["", "[roles]", *(f"{json.dumps(role)} = {json.dumps(p)}" for role, p in plan.form.roles.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_map(path: Path, reading: Reading) -> Reading:
    """The reading that a saved map says; what the command says besides goes before it. Raises ConfigError."""
    table = config.read_toml(path)
    known = {"form", "columns", "values_seen", "roles", *_OPTIONS}
    if odd := sorted(set(table) - known):
        raise ConfigError(f"{path}: unknown key {odd[0]!r}; a saved map has {', '.join(sorted(known))}")
    changes: dict[str, Any] = {
        name: tuple(table[name]) if isinstance(table[name], list) else table[name]
        for name in _OPTIONS
        if name in table and getattr(reading, name) in (None, ())
    }
    form = table.get("form")
    roles = dict(table.get("roles", {}))
    if form in ("generic", "trl"):
        changes["roles"] = {**roles, **reading.roles}
    else:
        changes["format"] = reading.format or form
    return replace(reading, **changes, saved_map=str(path))


def check_drift(path: str, sample: Sequence[Mapping[str, Any]], plan: Plan, name: str) -> None:
    """Raises DataError where a file lacks a column of the map, or brings labels that it did not have."""
    table = config.read_toml(Path(path))
    present = {column for row in sample for column in row}
    used = {column for role in dict(table.get("roles", {})).values() for column in paths.parse(role).columns}
    if lost := sorted(column for column in table.get("columns", ()) if column in used and column not in present):
        raise DataError(
            f"{name} drifted from {path}: it lacks the column {', '.join(lost)}; it has: {', '.join(sorted(present))}"
        )
    seen = set(table.get("values_seen", ()))
    if seen and (new := sorted(set(_labels(plan, sample)) - seen)):
        raise DataError(
            f"{name} drifted from {path}: new labels {', '.join(map(repr, new[:10]))} beside {', '.join(sorted(seen))}"
        )


def _labels(plan: Plan, sample: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """The values of the label column, empty where there is none or it has too many."""
    if plan.form is None:
        return Counter()
    labels: Counter[str] = Counter()
    for role in ("preference", "label"):
        if role in plan.form.roles:
            labels.update(as_text(value) for value in _values(sample, plan.form.roles[role]))
    for column in plan.form.wide:
        labels.update(as_text(value) for value in _values(sample, column))
    return labels if len(labels) <= MAX_VALUES else Counter()


def _values(sample: Sequence[Mapping[str, Any]], path: str) -> Iterator[Any]:
    for row in sample:
        value = paths.value_at(row, paths.parse(path))
        if value is not paths.MISSING and value not in (None, "") and not isinstance(value, Mapping | list):
            yield value
