"""What a cleaning step must see at once. A step says it as `SCOPE` in its module; without one it gets the whole frame.

A version larger than memory goes through a recipe in pieces as long as its steps say one. `joined` and `added` put
together what such steps made of pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

Pieces = Collection[pl.DataFrame]  # a frame cut by rows, in order; it can be gone through again


@dataclass(frozen=True)
class Rows:
    """What becomes of a row depends on that row and the context alone.

    Facts of pieces are added up: numbers, also inside of objects; what stands in `same` and what is no number must be
    the same in all. `finish` makes of the sum what is stored. `gpu`: it works with one where there is one.
    """

    same: Collection[str] = ()
    gpu: bool = False
    finish: Callable[[dict[str, Any]], dict[str, Any]] = dict


@dataclass(frozen=True, init=False)
class Columns:
    """The step looks at these columns of all rows and changes no other. Of `lengths`, columns of lists of texts, it
    sees how many texts there are, as nulls."""

    names: tuple[str, ...]
    lengths: tuple[str, ...]

    def __init__(self, *names: str, lengths: Sequence[str] = ()):
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "lengths", tuple(lengths))

    def of(self) -> list[pl.Expr]:
        """The columns that the step gets."""
        counted = [pl.lit(None, pl.String).repeat_by(pl.col(name).list.len()).alias(name) for name in self.lengths]
        return [*(pl.col(name) for name in self.names), *counted]


@dataclass(frozen=True)
class Streamed:
    """The step goes through the pieces by itself: `function`, of its module, takes Pieces in place of a frame. The
    frame that it keeps has `id` and the columns that it changes."""

    function: str


def added(parts: Sequence[Mapping[str, Any]], same: Collection[str] = ()) -> dict[str, Any]:
    """The facts of all pieces as those of one frame, before `finish`. Raises ValueError where they differ."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        if all(isinstance(value, Mapping) for value in values):
            result[name] = added(values)
        elif name not in same and all(isinstance(value, int | float) for value in values):
            result[name] = sum(values)
        elif any(value != values[0] for value in values):
            raise ValueError(f"{name} differs between pieces of one frame: {values[0]!r} and others")
        else:
            result[name] = values[0]
    return result


def joined(frame: pl.DataFrame, narrow: pl.DataFrame) -> pl.DataFrame:
    """The rows of `frame` that `narrow` has too, by id, with the columns of `narrow` in place of their own."""
    changed = [name for name in narrow.columns if name != "id"]
    both = frame.drop(changed).join(narrow, on="id", how="inner", maintain_order="left")
    return both.select(frame.columns).cast({name: frame.schema[name] for name in changed})
