"""Importers: one function a row form, from a parsed row to units, and how to tell which form a file has."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row
from rmkit import plugins
from rmkit.errors import DataError


def find(name: str) -> Source:
    """The source of that name. Raises UsageError for an unknown one."""
    source: Source = plugins.resolve("sources", name, trusted=True)
    return source


def all_sources() -> list[Source]:
    """Every source that a file may be in; of the built-in ones the more telling forms come first."""
    return [find(name) for name in plugins.names("sources")]


def detect(rows: Sequence[Row], *, path: object) -> Source:
    """The form that knows most of these rows, of several the first. Raises DataError where none knows any."""
    sources = all_sources()
    counts = [sum(source.matches(row) for row in rows) for source in sources]
    if not max(counts):
        columns = sorted({name for row in rows for name in row})
        raise DataError(f"{path}: no known format has the columns {', '.join(columns[:20]) or '(none)'}")
    return sources[counts.index(max(counts))]
