"""What turns the items of a file into rows that a form reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from data_pipelines.sources.reading.streams import Item, Parsed, Reject
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.unit_builder import Row

Gathered: TypeAlias = dict[str, Any] | Reject


class Gather(NamedTuple):
    """`rows` makes new rows of those of a file: one may stand for several, or for a part of one.

    A Reject that it yields needs no line of its own. `items_after` says that the new rows are joined with --items, not
    those of the file.
    """

    name: str
    about: str
    matches: Callable[[Sequence[Row]], bool]
    rows: Callable[[Iterator[Row], Hints], Iterator[Gathered]]
    items_after: bool = True

    def items(self, source: Iterator[Item], hints: Hints) -> Iterator[Item]:
        """The new rows and every reject, each before what was made of the rows behind it; lines are counted anew."""
        for line, result in enumerate(self._in_order(source, hints), start=1):
            yield result._replace(line=line) if isinstance(result, Reject) else Parsed(line, result)

    def _in_order(self, source: Iterator[Item], hints: Hints) -> Iterator[Gathered]:
        rejects: list[Reject] = []  # those read since the last new row

        def readable() -> Iterator[Row]:
            for item in source:
                if isinstance(item, Reject):
                    rejects.append(item)
                else:
                    yield item.value

        for result in self.rows(readable(), hints):
            yield from rejects
            rejects.clear()
            yield result
        yield from rejects
