"""What a reliability method says about each pair, and the checks that every method shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit.errors import ConfigError, DataError

MIN_PAIRS = 50  # below, a selected share or a fold of it is a handful of rows

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelWeights:
    """Weights [n] in [0, 1] of the pairs `ids` with a reason wherever the weight is below 1, else "".

    `soft_label` [n] in [0, 1] is the probability that the labeled order is right, for methods that estimate one.
    `evidence` holds numbers per pair ([n] or [n, ...]), `facts` the JSON-ready totals, thresholds and warnings.
    """

    method: str
    ids: tuple[str, ...]
    weight: Floats
    reason: tuple[str, ...]
    soft_label: Floats | None = None
    evidence: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns: dict[str, Any] = {"weight": self.weight, "reason": self.reason, **self.evidence}
        if self.soft_label is not None:
            columns["soft_label"] = self.soft_label
        wrong = {name: len(column) for name, column in columns.items() if len(column) != n}
        if wrong:
            raise ValueError(f"{n} ids, but {wrong}")
        if not ((self.weight >= 0) & (self.weight <= 1)).all():
            raise ValueError("weights must lie in [0, 1]")

    @property
    def keep(self) -> Flags:
        """[n] whether the pair weighs anything."""
        return self.weight > 0

    @property
    def reasons(self) -> dict[str, int]:
        """Pairs per reason, without the pairs that weigh fully."""
        return dict(Counter(reason for reason in self.reason if reason))


def reasons(n: int, payload: Mapping[str, ArrayLike]) -> tuple[str, ...]:
    """[n] the first reason whose mask [n] holds, "" where none does."""
    values = np.full(n, "", dtype=object)
    for reason, mask in payload.items():
        values[np.asarray(mask, dtype=bool) & (values == "")] = reason
    return tuple(values.tolist())


def check_ids(ids: Sequence[str | None]) -> tuple[str, ...]:
    """The ids. Raises DataError where one is missing or given twice: an audit needs one stable id a pair."""
    missing = sum(not one for one in ids)
    if missing:
        raise DataError(f"{missing} of {len(ids)} pairs have no id; every pair needs a stable one to be audited")
    if len(set(ids)) != len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise DataError(f"id {twice!r} stands for {count} pairs; ids must be unique")
    return tuple(str(one) for one in ids)


def check_enough(n: int, *, least: int = MIN_PAIRS, what: str = "pairs") -> None:
    """Raises DataError where fewer than `least` are usable."""
    if n < least:
        raise DataError(f"{n} usable {what}, at least {least} are needed; add data or leave this method out")


def check_noise(noise: float) -> float:
    """The share of wrong labels. Raises ConfigError outside [0, 0.5): from one half on, labels carry no signal."""
    if not 0 <= noise < 0.5:
        raise ConfigError(f"the noise prior is the share of wrong labels, in [0, 0.5); got {noise}")
    return float(noise)


def check_both_classes(p: ArrayLike) -> None:
    """Raises DataError where every decided label prefers the same position: then position tells the label."""
    decided = np.asarray(p, dtype=np.float64)
    decided = decided[decided != 0.5]
    for side, same in (("first", decided > 0.5), ("second", decided < 0.5)):
        if len(decided) and same.all():
            raise DataError(
                f"one class only: all {len(decided)} decided pairs prefer the {side} response; "
                "store the responses in an order that does not tell the label"
            )
