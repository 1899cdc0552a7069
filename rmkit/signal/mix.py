"""From named components to one number per completion.

    sum         sum_k w_k c_k
    product     prod_k c_k ^ w_k              components at least 0
    harmonic    sum_k w_k / sum_k (w_k / c_k) components at least 0; 0 where one is 0

A gate lets the reward through where its component reaches a value, and gives `gated` where it does not. A component
that is missing or no finite number makes its own completion's reward missing, never smaller, and no other's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Combine = Literal["sum", "product", "harmonic"]
MODEL, EXACT_MATCH = "reward", "exact_match"


class Mixed(NamedTuple):
    """One completion's finite components and what they make; `missing` says why that is nothing."""

    reward: float | None
    components: Mapping[str, float]
    missing: str | None


def mixed(
    weights: Mapping[str, float],
    components: Mapping[str, float | None],
    *,
    combine: Combine = "sum",
    gates: Mapping[str, float] | None = None,
    gated: float = 0.0,
    reasons: Mapping[str, str] | None = None,
) -> Mixed:
    """The joined components of one completion; `reasons` say why a component is missing, where that is known."""
    gates = gates or {}
    named = dict.fromkeys((*weights, *gates))
    present = {
        name: value
        for name, value in components.items()
        if name in named and value is not None and math.isfinite(value)
    }
    for name in named:
        if name not in present:
            value = components.get(name)
            why = "missing" if value is None else f"{value}, not a finite number"
            why = (reasons or {}).get(name, "") or f"the component {name!r} is {why}"
            return Mixed(None, present, why)
    if any(present[name] < least for name, least in gates.items()):
        return Mixed(gated, present, None)
    if combine != "sum" and (below := [name for name in weights if present[name] < 0]):
        return Mixed(None, present, f"the component {below[0]!r} is below 0, which {combine} cannot join")
    total = _joined(weights, present, combine)
    if not math.isfinite(total):  # finite factors whose product or sum is beyond the largest number
        return Mixed(None, present, f"the mix of its components is {total}, not a finite number")
    return Mixed(total, present, None)


def exact_sum(values: Sequence[int | float]) -> float:
    """Their exact sum: infinite or NaN where it is no finite number, never an error."""
    numbers = [_as_float(value) for value in values]
    try:
        return math.fsum(numbers)
    except OverflowError:  # partial sums beyond the largest number
        return math.fsum(value / len(numbers) for value in numbers) * len(numbers)
    except ValueError:  # infinities of both signs
        return math.nan


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of 400 digits
        return math.inf if value > 0 else -math.inf


def _joined(weights: Mapping[str, float], components: Mapping[str, float], combine: Combine) -> float:
    if combine == "sum":
        return sum(weight * components[name] for name, weight in weights.items())
    if combine == "harmonic":
        if any(not components[name] for name in weights):
            return 0.0
        return sum(weights.values()) / sum(weight / components[name] for name, weight in weights.items())
    try:
        return float(math.prod(components[name] ** weight for name, weight in weights.items()))
    except (OverflowError, ZeroDivisionError):
        return math.inf
