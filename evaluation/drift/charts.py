"""The charts of `rmkit drift`, as inline SVG, and the page around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from evaluation.drift.served import Observed
from evaluation.drift.statistics import PSI_MARK
from evaluation.reports.charts import COLORS, axes_of

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Drift of {title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; font-size: 13px }} h2 {{ font-size: 1.1rem; margin-top: 2rem }} svg {{ max-width: 100% }}
</style>
<h1>Drift of {title}</h1>
<pre>{table}</pre>
{body}
</html>
"""


def densities(reference: Sequence[float | None], current: Sequence[float | None], *, xlabel: str) -> str:
    """Both distributions over the same bins, as shares; outliers beyond the 0.5% tails fall into the outer bins."""
    sides = [np.array([value for value in side if value is not None], dtype=float) for side in (reference, current)]
    both = np.concatenate(sides)
    if not len(both):
        return ""
    low, high = np.quantile(both, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 31)
    svg: list[str] = []
    with axes_of(8.4, 2.8, svg) as axes:
        for values, name, color in zip(sides, ("reference", "served"), COLORS, strict=False):
            if len(values):
                shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
                axes.stairs(shares, edges, color=color, fill=True, alpha=0.3)
                axes.stairs(shares, edges, color=color, label=f"{name} ({len(values):,})")
        axes.set_xlabel(xlabel)
        axes.set_ylabel("share")
        axes.legend()
    return svg[0]


def stability(result: Mapping[str, Any]) -> str:
    """PSI of scores and of lengths, for all and for each source."""
    parts = {"all": result["whole"], **result["slices"]}
    svg: list[str] = []
    with axes_of(8.4, 0.9 + 0.5 * len(parts), svg) as axes:
        for row, part in enumerate(reversed(parts.values())):
            for offset, what, color in ((0.18, "scores", COLORS[0]), (-0.18, "lengths", COLORS[1])):
                value = part[what]["psi"] if part[what] else 0.0
                axes.barh(row + offset, value, height=0.32, color=color, label=what if not row else None)
        axes.set_yticks(range(len(parts)), [*reversed(parts)])
        axes.axvline(PSI_MARK, color="#888888", linewidth=1, linestyle="--")
        axes.set_xlabel("population stability index (dashed: 0.1)")
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return svg[0]


def days(observed: Sequence[Observed]) -> str:
    """Mean score with two standard errors per day of serving, where there was more than one."""
    by_day: dict[date, list[float]] = defaultdict(list)
    for one in observed:
        if one.time is not None and one.value is not None:
            by_day[one.time.date()].append(one.value)
    if len(by_day) < 2:
        return ""
    when = sorted(by_day)
    means = [float(np.mean(by_day[day])) for day in when]
    errors = [2 * float(np.std(by_day[day])) / len(by_day[day]) ** 0.5 for day in when]
    svg: list[str] = []
    with axes_of(8.4, 2.6, svg) as axes:
        axes.errorbar([day.isoformat()[5:] for day in when], means, yerr=errors, fmt="o-", color=COLORS[0])
        axes.set_ylabel("mean score")
    return svg[0]
