"""Group: the completions of one prompt, or of many prompts with a key, as columns.

    scalars [N]      one number per completion: reward, correct, length
    lists [N][k]     ragged: one number per turn, step or token of a completion
    keys             [N] or [N][k] labels: group, stratum, state, answer cluster

A missing number is NaN, a missing label code -1. Nothing in a Group changes; `with_column` gives another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain as chained
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import DataError, unknown

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Kind = Literal["scalar", "list", "number", "key"]  # a number is a scalar or a list

BATCH, ROW, POSITION, GROUP = "batch", "row", "position", "group"  # keys that need no column


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """`values` are [N], or the lists of all rows one behind the other where `lengths` [N] is there.

    A column of labels holds codes into `labels`.
    """

    values: NDArray[Any]
    lengths: Codes | None = None
    labels: tuple[Any, ...] | None = None

    @property
    def kind(self) -> Kind:
        if self.labels is not None:
            return "key"
        return "scalar" if self.lengths is None else "list"

    def same_shape(self, other: Column) -> bool:
        """Whether both are scalars, or lists of the same lengths."""
        if self.lengths is None or other.lengths is None:
            return self.lengths is other.lengths
        return self.lengths is other.lengths or np.array_equal(self.lengths, other.lengths)

    @property
    def ends(self) -> Codes:
        """[N] where each row's list ends in `values`."""
        assert self.lengths is not None
        return np.cumsum(self.lengths)

    @property
    def rows(self) -> Codes:
        """The row of each value."""
        n = len(self.values) if self.lengths is None else len(self.lengths)
        return np.arange(n) if self.lengths is None else np.repeat(np.arange(n), self.lengths)

    @property
    def positions(self) -> Codes:
        """The place of each value in its row's list, from 0."""
        if self.lengths is None:
            return np.zeros(len(self.values), np.int64)
        return np.arange(len(self.values)) - np.repeat(self.ends - self.lengths, self.lengths)

    def over(self, values: Floats) -> Column:
        """A column of this shape with other numbers; what is not finite is missing."""
        return numbers(values, self.lengths)

    def read(self) -> list[Any]:
        """Plain Python: numbers with None for the missing, labels, or lists of them."""
        if self.labels is not None:
            flat = [None if code < 0 else self.labels[code] for code in self.values.tolist()]
        else:
            flat = [None if value != value else value for value in self.values.tolist()]
        if self.lengths is None:
            return flat
        return [flat[end - length : end] for end, length in zip(self.ends.tolist(), self.lengths.tolist(), strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """N completions as columns of one length; see the module."""

    n: int
    columns: Mapping[str, Column] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Mapping[str, Iterable[Any]] | None = None, /, **more: Iterable[Any]) -> Group:
        """The group of these columns: numbers or None, lists of them, or labels (texts, tuples), one per completion.

        Raises DataError for a column of another length than the first, and for one that mixes numbers and lists.
        """
        read = {name: _column(name, values) for name, values in {**(columns or {}), **more}.items()}
        sizes = {name: len(one.values if one.lengths is None else one.lengths) for name, one in read.items()}
        if not sizes:
            raise DataError("a Group needs at least one column")
        (first, n), *_ = sizes.items()
        for name, size in sizes.items():
            if size != n:
                raise DataError(f"column {name!r} has {size} values, column {first!r} has {n}; give one per completion")
        return cls(n, read)

    def with_column(self, name: str, column: Column) -> Group:
        """The same group with this column, which takes the place of one of the name."""
        return Group(self.n, {**self.columns, name: column})

    def __getitem__(self, name: str) -> list[Any]:
        """The column as plain Python, None where missing."""
        return self.column(name).read()

    def column(self, name: str) -> Column:
        """Raises DataError for a name that is not there."""
        if name not in self.columns:
            raise DataError(unknown("column", name, sorted(self.columns)))
        return self.columns[name]

    def number(self, name: str) -> Column:
        """A column of numbers. Raises DataError where there is none, or labels."""
        column = self.column(name)
        if column.labels is not None:
            raise DataError(f"column {name!r} holds labels such as {column.labels[:1]}, expected numbers")
        return column

    def aligned(self, name: str, to: Column) -> Floats:
        """Numbers for each value of `to`: a scalar is repeated over the row's list. DataError for other lengths.

        Without a column of its own, `position` is the place in the list, from 1.
        """
        if name == POSITION and name not in self.columns:
            return (to.positions + 1).astype(np.float64)
        column = self.number(name)
        if column.same_shape(to):
            return column.values
        if column.lengths is None and to.lengths is not None:
            return np.repeat(column.values, to.lengths)
        raise DataError(f"the lists of column {name!r} are not as long as those that they are combined with")

    def key(self, names: Sequence[str], to: Column) -> tuple[Codes, int]:
        """A code in 0 ... m - 1 for each value of `to`, equal where all the named keys are, and m.

        `batch` is one key for all, `row` one per completion, `position` the place in the list. Without a column `group`
        all rows are one group. Numbers serve as labels. A missing label is a key of its own, as is a missing number.
        """
        codes, m = np.zeros(len(to.values), np.int64), 1
        for name in names:
            one, count = self._codes(name, to)
            if m == 1:
                codes, m = one, count
            else:
                _, codes = np.unique(codes * count + one, return_inverse=True)
                m = int(codes.max(initial=-1)) + 1
        return codes, m

    def _codes(self, name: str, to: Column) -> tuple[Codes, int]:
        if name == BATCH or (name == GROUP and GROUP not in self.columns):
            return np.zeros(len(to.values), np.int64), 1
        if name == ROW:
            return to.rows, self.n
        if name == POSITION:
            return to.positions, int(to.positions.max(initial=-1)) + 1
        column = self.column(name)
        if column.labels is None:
            labels, codes = np.unique(column.values, return_inverse=True)
            m = len(labels)
        else:
            m = len(column.labels) + 1
            codes = np.where(column.values < 0, m - 1, column.values)
        if not column.same_shape(to):
            if column.lengths is not None or to.lengths is None:
                raise DataError(f"the lists of key {name!r} are not as long as those that they group")
            codes = np.repeat(codes, to.lengths)
        return codes, m


def numbers(values: Floats, lengths: Codes | None = None) -> Column:
    """The column of these numbers; what is not finite is missing."""
    finite = np.isfinite(values)
    return Column(values if finite.all() else np.where(finite, values, np.nan), lengths)


def _column(name: str, values: Iterable[Any]) -> Column:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and values.ndim == 1:
        return numbers(values.astype(np.float64))
    rows = list(values)
    kinds = set(map(type, rows))
    if kinds & {list, np.ndarray}:
        if not kinds <= {list, tuple, np.ndarray}:
            raise DataError(f"column {name!r} mixes lists with single values; use [] for a completion that has none")
        inner = _column(name, list(chained.from_iterable(rows)))
        return Column(inner.values, np.array([len(row) for row in rows], np.int64), inner.labels)
    if any(issubclass(kind, str | tuple) for kind in kinds):
        return _labels(rows)
    try:
        filled = [math.nan if row is None else row for row in rows] if type(None) in kinds else rows
        return numbers(np.array(filled, np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"column {name!r} holds what is neither number nor label: {error}") from error


def _labels(rows: Sequence[Any]) -> Column:
    codes: dict[Any, int] = {}
    values = [-1 if row is None else codes.setdefault(row, len(codes)) for row in rows]
    return Column(np.array(values, np.int64), None, tuple(codes))
