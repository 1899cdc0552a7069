"""What an importer is: how to tell its form, and how a row of it becomes units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from data_pipelines.sources.form import Form
from data_pipelines.sources.unit_builder import Row, Unit


class Source(NamedTuple):
    """`matches` looks at one row's columns, `units` turns a row into units or raises UnusableRowError.

    `labels` says in words how its labels are coded, `example` is a row of it; both are for the documentation. `form` is
    there where the source is data alone. Rows of a
    benchmark are never trained on.
    """

    name: str
    about: str
    matches: Callable[[Row], bool]
    units: Callable[[Row], Iterator[Unit]]
    labels: str = ""
    example: Mapping[str, Any] | None = None
    form: Form | None = None
    is_benchmark: bool = False
