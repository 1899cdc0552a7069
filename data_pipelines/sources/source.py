"""What an importer is: how to tell its form, and how a row of it becomes units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from data_pipelines.sources.unit_builder import Row, Unit


class Source(NamedTuple):
    """`matches` looks at one row's columns, `units` turns a row into units or raises UnusableRowError."""

    name: str
    about: str
    matches: Callable[[Row], bool]
    units: Callable[[Row], Iterator[Unit]]
