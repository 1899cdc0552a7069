"""What every transform is: a frozen dataclass whose fields are its options, pure from group to group.

    stage       sample (one completion alone) | group | normalize | place; a chain never goes back. A transform of
                single numbers may also stand after any other (`anywhere`): a factor on a normalized reward, say.
    needs       the columns that it reads, with their kind
    gives       the column that it writes
    keeps       what its result does not see, or has in common with its input (checked by one property test):
                shift   the same number added to all values of a key changes nothing
                scale   a positive factor on all values of a key changes nothing
                order   of two values of a key the larger one stays no smaller
                sum     of each list, or of the number that a list replaces
                zero    the results of a key sum to zero

A missing value is missing in the result and has no part in any other. A new one is a class like these, under a name
by an entry point of the group `rmkit.transforms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import POSITION, Column, Floats, Group, Kind

Stage = Literal["sample", "group", "normalize", "place"]
STAGES: tuple[Stage, ...] = ("sample", "group", "normalize", "place")
REWARD = "reward"
MISSING = "missing"  # an operand that stands for no number


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """Reads `column`, writes `into`, which is `column` itself where not set."""

    stage: ClassVar[Stage] = "sample"
    anywhere: ClassVar[bool] = False

    column: Annotated[str, "the column that it reads"] = REWARD
    into: Annotated[str, "the column that it writes; the one that it reads where not set"] = ""

    @property
    def gives(self) -> str:
        """The name of the column that it writes."""
        return self.into or self.column

    @property
    def needs(self) -> dict[str, Kind]:
        """The columns that it reads."""
        return {self.column: "number"}

    @property
    def keeps(self) -> frozenset[str]:
        """What is declared of the result; see the module."""
        return frozenset()

    def apply(self, group: Group) -> Group:
        """The group with the new column. Raises DataError for a column that does not fit."""
        return group.with_column(self.gives, self.result(group))

    def result(self, group: Group) -> Column:
        """The new column."""
        raise NotImplementedError


def names(value: Any, what: str) -> tuple[str, ...]:
    """One name or a list of them. Raises ConfigError for anything else."""
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ConfigError(f"{what}: expected a column or a list of columns, got {value!r}")


def keys(value: Any, what: str = "by") -> dict[str, Kind]:
    """The columns that keys need: none for the ones that every group has."""
    return {name: "key" for name in names(value, what) if name not in ("batch", "row", "position", "group")}


def operand_needs(value: Any, what: str) -> dict[str, Kind]:
    """The column that an operand names, if any. Raises ConfigError for what is neither number nor name."""
    if isinstance(value, str):
        return {} if value in (MISSING, POSITION) else {value: "number"}
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{what}: expected a number, a column or {MISSING!r}, got {value!r}")
    return {}


def operand(group: Group, value: Any, to: Column) -> Floats:
    """Numbers for each value of `to`: a constant, a column of that shape or of scalars, or nothing but missing."""
    if isinstance(value, str) and value != MISSING:
        return group.aligned(value, to)
    return np.full(len(to.values), np.nan if value == MISSING else float(value))


def merged(*needs: Mapping[str, Kind]) -> dict[str, Kind]:
    """All needs; a column that one of them wants as a scalar or list is wanted so."""
    result: dict[str, Kind] = {}
    for one in needs:
        for name, kind in one.items():
            if result.get(name, "number") == "number":
                result[name] = kind
    return result


def widest(group: Group, columns: Sequence[str], *more: Column) -> Column:
    """The first of the columns that is a list, else the first: the shape of what is made of all of them."""
    shapes = [group.number(name) for name in columns] + list(more)
    return next((one for one in shapes if one.lengths is not None), shapes[0])
