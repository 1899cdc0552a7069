"""From values of single criteria to one reward, with every component kept.

    weighted    sum of w v over the sum of the positive w, cut to [0, 1]. Penalties (w < 0) are taken off when met, as
                in HealthBench (arXiv 2505.08775): points reached / points reachable.
    gated       0 where a hard rule is broken, else `weighted` over the other criteria (or 1 where there are none)
    product     product of v^(w / sum w): one failure pulls everything down. No penalties.
    normalized  z = (v - mean) / std of each criterion over the responses of one prompt, then the mean of z by weight;
                a criterion that tells nobody apart gives 0

A criterion without a value (the judge abstained) leaves the sum, its weight too; `coverage` is the share of weight
left. Values are in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from rmkit.errors import DataError
from rubrics.criteria import HARD_RULE, Criterion

Rule = Literal["weighted", "gated", "product", "normalized"]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`value` is NaN where nothing could be scored. `components` are the criteria's values as given, None abstained."""

    value: float
    components: tuple[float | None, ...]
    coverage: float
    broken: tuple[int, ...] = ()  # hard rules that were broken, as positions


def aggregate(criteria: Sequence[Criterion], values: Sequence[float | None], *, rule: Rule = "weighted") -> Aggregate:
    """One response's reward. Raises DataError for values outside [0, 1] or too few, and for senseless weights."""
    _check(criteria, values, rule)
    broken = tuple(i for i, c in enumerate(criteria) if c.tag == HARD_RULE and (v := values[i]) is not None and v < 0.5)
    scored = [(c, v) for c, v in zip(criteria, values, strict=True) if v is not None]
    coverage = math.fsum(abs(c.weight) for c, _ in scored) / math.fsum(abs(c.weight) for c in criteria)
    return Aggregate(_value(scored, rule, broken=bool(broken)), tuple(values), coverage, broken)


def aggregate_group(
    criteria: Sequence[Criterion], values: Sequence[Sequence[float | None]], *, rule: Rule
) -> list[Aggregate]:
    """The rewards of all responses to one prompt; `normalized` needs the group, the other rules do not."""
    if rule != "normalized":
        return [aggregate(criteria, row, rule=rule) for row in values]
    for row in values:
        _check(criteria, row, rule)
    standard = [_standardized([row[i] for row in values]) for i in range(len(criteria))]
    plain = [aggregate(criteria, row) for row in values]
    return [
        Aggregate(
            _mean_z(criteria, [column[r] for column in standard]), result.components, result.coverage, result.broken
        )
        for r, result in enumerate(plain)
    ]


def require_total(criteria: Sequence[Criterion], total: float) -> None:
    """Raises DataError where the weights do not add up to the total that the rubric declares."""
    result = math.fsum(criterion.weight for criterion in criteria)
    if not math.isclose(result, total, rel_tol=1e-6, abs_tol=1e-6):
        raise DataError(f"the weights add up to {result:.6g}, the rubric declares {total:.6g}; correct one of them")


def _check(criteria: Sequence[Criterion], values: Sequence[float | None], rule: Rule) -> None:
    if len(criteria) != len(values) or not criteria:
        raise DataError(f"{len(criteria)} criteria, {len(values)} values; expected as many, and at least one")
    if bad := [value for value in values if value is not None and not 0 <= value <= 1]:
        raise DataError(f"values of criteria lie in [0, 1], got {bad[0]}")
    check_weights(criteria, rule)


def check_weights(criteria: Sequence[Criterion], rule: Rule) -> None:
    """Raises DataError for weights that the rule can make nothing of."""
    if math.fsum(max(criterion.weight, 0.0) for criterion in criteria) <= 0:
        raise DataError("no criterion has a positive weight, so nothing could be reached")
    if rule == "product" and any(criterion.weight < 0 for criterion in criteria):
        raise DataError("a product knows no penalties (negative weights); use weighted or gated")


def _value(scored: Sequence[tuple[Criterion, float]], rule: Rule, *, broken: bool) -> float:
    if not scored:
        return math.nan
    match rule:
        case "gated":
            if broken:
                return 0.0
            others = [(c, v) for c, v in scored if c.tag != HARD_RULE]
            return _weighted(others) if others else 1.0
        case "product":
            total = math.fsum(c.weight for c, _ in scored)
            return math.prod(v ** (c.weight / total) for c, v in scored) if total > 0 else math.nan
        case _:
            return _weighted(scored)


def _weighted(scored: Sequence[tuple[Criterion, float]]) -> float:
    reachable = math.fsum(max(c.weight, 0.0) for c, _ in scored)
    if reachable <= 0:
        return math.nan
    return min(max(math.fsum(c.weight * v for c, v in scored) / reachable, 0.0), 1.0)


def _standardized(column: Sequence[float | None]) -> list[float | None]:
    known = [value for value in column if value is not None]
    mean, spread = (fmean(known), pstdev(known)) if known else (0.0, 0.0)
    return [None if value is None else (value - mean) / spread if spread > 1e-12 else 0.0 for value in column]


def _mean_z(criteria: Sequence[Criterion], row: Sequence[float | None]) -> float:
    scored = [(c.weight, z) for c, z in zip(criteria, row, strict=True) if z is not None]
    total = math.fsum(abs(weight) for weight, _ in scored)
    return math.fsum(weight * z for weight, z in scored) / total if total > 0 else math.nan
