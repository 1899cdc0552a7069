"""An importer: rows of question, left, right and better ("left", "right" or "same")."""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field, judgment, response, unit

RANKS: dict[str, list[int | None]] = {"left": [0, 1], "right": [1, 0], "same": [0, 0]}


def matches(row: Row) -> bool:
    return {"question", "left", "right", "better"} <= set(row)


def pairs(row: Row) -> Iterator[Unit]:
    if row["better"] not in RANKS:
        raise UnusableRowError("better is not left, right or same")
    answers = [response(field(row, side)) for side in ("left", "right")]
    yield unit(field(row, "question"), answers, [judgment("reader", "human", ranks=RANKS[row["better"]])])


LEFT_RIGHT = Source("left-right", "question, left, right, better", matches, pairs)
