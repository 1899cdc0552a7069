"""What turns the items of a file into rows that a form reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from data_pipelines.sources.reading.streams import Item
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.unit_builder import Row


class Gather(NamedTuple):
    """`rows` counts lines anew: one that it yields may stand for several of the file, or for a part of one.

    `items_after` says that the rows it makes are joined with --items, not those of the file.
    """

    name: str
    about: str
    matches: Callable[[Sequence[Row]], bool]
    rows: Callable[[Iterator[Item], Hints], Iterator[Item]]
    items_after: bool = True
