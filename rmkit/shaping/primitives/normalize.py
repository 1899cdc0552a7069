"""Values against the statistics of their key.

    (x - center) / (scale + epsilon)

center: the mean, that of the others (leave one out: (x - mean) n / (n - 1)), the minimum, or nothing. scale: the
standard deviation of a sample (n - 1, as TRL and verl), of a population, the range, the mean, or nothing. Statistics
may be taken over a subset (`where` > 0) and applied to all, over one value per `once_per`, or weighted (`weight`: as if
each value stood there so many times).

Trainers differ in the rest. `epsilon`: verl 1e-6, TRL 1e-4. `single`, a key with one value only: TRL 0, verl the value
itself (raw). `constant`, a key whose values are all equal: 0 (TRL, verl), or a scale of one (RL-PLUS). `unscored`: TRL
gives a missing value 0, after leaving it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Codes, Column, Floats, Group, Kind
from rmkit.shaping.segments import Segments
from rmkit.shaping.transform import MISSING, Stage, Transform, keys, merged, names

RAW, UNIT = "raw", "unit"
HUGE, TINY = 1e150, 1e-150  # beyond them squares overflow or vanish


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize(Transform):
    stage: ClassVar[Stage] = "normalize"

    by: Annotated[Any, "the keys: columns, group, batch, row, position"] = "group"
    center: Annotated[Literal["mean", "others", "min", "none"], "what is subtracted"] = "mean"
    scale: Annotated[Literal["std", "population_std", "range", "mean", "none"], "what it is divided by"] = "std"
    epsilon: Annotated[float, "added to the scale"] = 1e-6
    variance_epsilon: Annotated[float, "added to the variance, under the root"] = 0.0
    where: Annotated[str, "a column: statistics are taken where it is positive"] = ""
    once_per: Annotated[Any, "keys of which each counts once, by its first value"] = ()
    weight: Annotated[str, "a column: how often each value counts"] = ""
    single: Annotated[Any, "what the only value of a key becomes: a number, missing, or raw (itself)"] = 0.0
    constant: Annotated[Any, "what equal values become: a number, missing, or unit (their scale is 1)"] = 0.0
    unscored: Annotated[Literal["missing", "zero"], "what a missing value becomes"] = "missing"

    def __post_init__(self) -> None:
        if self.epsilon < 0 or self.variance_epsilon < 0:
            raise ConfigError(f"epsilon must not be negative, got {self.epsilon}, {self.variance_epsilon}")
        for name, value, word in (("single", self.single, RAW), ("constant", self.constant, UNIT)):
            if not isinstance(value, int | float) and value not in (MISSING, word):
                raise ConfigError(f"{name}: expected a number, {MISSING} or {word}, got {value!r}")

    @property
    def needs(self) -> dict[str, Kind]:
        columns: dict[str, Kind] = {name: "number" for name in (self.column, self.where, self.weight) if name}
        return merged(columns, keys(self.by), keys(self.once_per, "once_per"))

    @property
    def keeps(self) -> frozenset[str]:
        result = {"order"}
        if self.center != "none" and self.scale != "mean" and self.single != RAW:
            result.add("shift")
        if self.scale != "none" and not self.epsilon and not self.variance_epsilon and self.single != RAW:
            result.add("scale")
        plain = not self.where and not self.once_per and not self.weight
        if plain and self.center in ("mean", "others") and self.scale != "mean" and self.single != RAW:
            result.add("zero")
        return frozenset(result)

    def result(self, group: Group) -> Column:
        column = group.number(self.column)
        codes, m = group.key(names(self.by, "by"), column)
        values, powers = _moderate(column.values, codes, m)
        chosen = Segments(self._chosen(group, column, codes, values), codes, m, self._weights(group, column))
        center, scale = self._statistics(chosen)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            result = values if center is None else values - center[codes]
            if self.center == "others":
                result = result * (chosen.count / (chosen.count - 1))[codes]
            if powers is not None and self.scale == "none":
                result = np.ldexp(result, powers[codes])
            if scale is not None:
                result = result / (scale + self._epsilon(powers))[codes]
                equal = (chosen.max() == chosen.min())[codes]
                if self.center != "none" and self.constant != UNIT:
                    result = np.where(equal & ~np.isnan(values), _number(self.constant), result)
                elif center is not None:
                    result = np.where(
                        equal, column.values - np.ldexp(center, 0 if powers is None else powers)[codes], result
                    )
        if self.center != "none":
            alone = (chosen.count == 1)[codes] & ~np.isnan(values)
            if alone.any():
                result = np.where(alone, column.values if self.single == RAW else _number(self.single), result)
        if self.unscored == "zero":
            result = np.where(np.isnan(column.values), 0.0, result)
        return column.over(result)

    def _epsilon(self, powers: Codes | None) -> Floats | float:
        return self.epsilon if powers is None else np.ldexp(self.epsilon, -powers)

    def _statistics(self, chosen: Segments) -> tuple[Floats | None, Floats | None]:
        mean = chosen.mean()
        center = {"none": None, "min": chosen.min() if self.center == "min" else None}.get(self.center, mean)
        match self.scale:
            case "none":
                return center, None
            case "mean":
                return center, mean
            case "range":
                return center, chosen.max() - chosen.min()
        return center, np.sqrt(chosen.variance(mean, sample=self.scale == "std") + self.variance_epsilon)

    def _chosen(self, group: Group, column: Column, codes: Codes, values: Floats) -> Floats:
        """The values of which statistics are taken, the others missing."""
        keep = np.ones(len(values), bool)
        if self.where:
            keep &= group.aligned(self.where, column) > 0
        if self.once_per:
            once, _ = group.key([*names(self.by, "by"), *names(self.once_per, "once_per")], column)
            places = np.flatnonzero(keep & ~np.isnan(values))
            _, first = np.unique(once[places], return_index=True)
            keep = np.zeros(len(values), bool)
            keep[places[first]] = True
        return values if keep.all() else np.where(keep, values, np.nan)

    def _weights(self, group: Group, column: Column) -> Floats | None:
        return np.nan_to_num(group.aligned(self.weight, column)) if self.weight else None


def _number(value: Any) -> float:
    return np.nan if value == MISSING else float(value)


def _moderate(values: Floats, codes: Codes, m: int) -> tuple[Floats, Codes | None]:
    """Values near the ends of the range of numbers, brought by powers of two to where squares can be taken.

    The largest magnitude of each key is then in [0.5, 1); no digit changes. The powers are None where none was needed.
    """
    size = np.abs(values)
    odd = (size > HUGE) | ((size < TINY) & (size > 0))
    if not odd.any():
        return values, None
    _, powers = np.frexp(np.nan_to_num(Segments(size, codes, m).max()))
    return np.ldexp(values, -powers[codes]), powers.astype(np.int64)
