"""Do scores that are rewards still follow the truth? Scores of verified items, period by period.

    e_i = score_i - truth_i            both in [0, 1]; unscored and unverified items are left out and counted
    bias of a period = mean e
    drift = bias_last - bias_first     t = drift / sqrt(s_first^2 / n_first + s_last^2 / n_last)  (Welch)

The alarm rings where |t| reaches `threshold` and |drift| `least`. For rewards that only peers, a label-free rule or the
model itself give: CoMAS's scorer (a scorer that colludes with solvers scores wrong solutions higher), Tango's step
verdicts, SPARK's judge. Small periods are no evidence: under `MIN_ITEMS` nothing rings.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rmkit.errors import DataError
from rmkit.metrics.steps import auc

MIN_ITEMS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """`bias` is NaN without an audited item, `auc` where one class is absent; `n` counts audited items."""

    period: Hashable
    n: int
    left_out: int
    bias: float
    auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreAudit:
    """`t` is NaN where a period is too small, or where nothing varies and nothing has moved."""

    periods: tuple[Period, ...]
    drift: float
    t: float
    alarm: bool


def score_audit(
    scores: Sequence[float | None],
    truth: Sequence[float | None],
    periods: Sequence[Hashable],
    *,
    threshold: float = 3.0,
    least: float = 0.05,
) -> ScoreAudit:
    """The audit of scores [n] against verified outcomes [n] over periods [n], which stand in the order of time."""
    if not len(scores) == len(truth) == len(periods):
        raise DataError(
            f"expected as many scores as outcomes and periods, got {len(scores)}, {len(truth)}, {len(periods)}"
        )
    if not scores:
        raise DataError("an audit needs items")
    rows: dict[Hashable, list[tuple[float, float]]] = {name: [] for name in periods}
    for score, outcome, name in zip(scores, truth, periods, strict=True):
        if score is not None and outcome is not None and not math.isnan(score + outcome):
            rows[name].append((score, outcome))
    errors = {name: [score - outcome for score, outcome in own] for name, own in rows.items()}
    total = {name: sum(one == name for one in periods) for name in rows}
    summary = tuple(
        Period(
            period=name,
            n=len(own),
            left_out=total[name] - len(own),
            bias=statistics.fmean(errors[name]) if own else math.nan,
            auc=auc([score for score, _ in own], [outcome >= 0.5 for _, outcome in own]),
        )
        for name, own in rows.items()
    )
    first, last = errors[summary[0].period], errors[summary[-1].period]
    drift = summary[-1].bias - summary[0].bias
    t = _welch(first, last, drift) if min(len(first), len(last)) >= MIN_ITEMS else math.nan
    return ScoreAudit(periods=summary, drift=drift, t=t, alarm=abs(t) >= threshold and abs(drift) >= least)


def _welch(first: Sequence[float], last: Sequence[float], drift: float) -> float:
    error = math.sqrt(statistics.variance(first) / len(first) + statistics.variance(last) / len(last))
    if error:
        return drift / error
    return math.copysign(math.inf, drift) if drift else math.nan
