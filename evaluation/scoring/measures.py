"""From credits to sections and totals: cells, measures over them, and intervals clustered by prompt.

A cell's rate is sum(earned) / sum(possible) over its credits. A measure combines rates as its suite's TOML declares
(weighted mean, sum, harmonic mean, pooled). An unscored credit is in neither sum; beside each number stands the one
over all items (`evaluation.suites.items.of_all`), so that a denominator never shrinks unseen. Intervals resample whole
clusters (prompts) with replacement and recompute every measure from the resampled cells, so a total's interval takes
all its parts along (Cameron, Gelbach & Miller 2008; percentile interval, 2,000 resamples, 95%). A single pooled cell
gives the same interval as `rmkit.metrics.clustered_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.reports.json_ready import without_nan
from evaluation.suites.items import Credit, of_all
from evaluation.suites.suite import Measure, Suite

_DRAWN = 2_000_000  # cluster draws held at once

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cells:
    """Sums per cluster and cell: `earned` and `possible` are [K, C]; `n`, `ties`, `unscored` are [C] counts."""

    cells: tuple[str, ...]
    clusters: tuple[str, ...]
    earned: Array
    possible: Array
    n: NDArray[np.int64]
    ties: NDArray[np.int64]
    unscored: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """`percent` = 100 numerator / denominator with its interval; as in `Measured`."""

    percent: float
    numerator: float
    denominator: float
    low: float = math.nan
    high: float = math.nan
    of_present: float = math.nan


@dataclass(frozen=True, slots=True)
class Measured:
    """`percent` = 100 numerator / denominator, NaN where parts are `missing` (no data) or nothing was scored.

    `n` counts the credits behind it, `masked` names the optional parts left out, `of_present` is the percent over the
    parts that are there (never a substitute for the missing total). `low` and `high` are the interval's ends in
    percent, NaN without one. `of_all` is the same over all items, unscored ones as the suite counts them.
    """

    name: str
    percent: float
    numerator: float
    denominator: float
    n: int
    ties: int
    unscored: int
    clusters: int
    low: float = math.nan
    high: float = math.nan
    missing: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    of_present: float = math.nan
    of_all: Share | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields with null for NaN and without what does not apply."""
        plain: dict[str, Any] = without_nan(asdict(self))
        for part in (plain, plain["of_all"] or {}):
            for key in ("missing", "masked", "of_present"):
                if key in part and not part[key]:
                    del part[key]
        return plain


def cells_of(
    credits: Sequence[Credit], *, cells: Sequence[str] | None = None, clusters: Sequence[str] | None = None
) -> Cells:
    """The table of credits; with `cells` and `clusters` given, in that order (to align two models)."""
    cell_names = tuple(cells if cells is not None else dict.fromkeys(credit.cell for credit in credits))
    cluster_names = tuple(clusters if clusters is not None else dict.fromkeys(credit.cluster for credit in credits))
    column = {cell: index for index, cell in enumerate(cell_names)}
    row = {cluster: index for index, cluster in enumerate(cluster_names)}
    shape = (len(cluster_names), len(cell_names))
    earned, possible = np.zeros(shape), np.zeros(shape)
    counts = np.zeros((3, shape[1]), dtype=np.int64)
    for credit in credits:
        at = row[credit.cluster], column[credit.cell]
        earned[at] += credit.earned
        possible[at] += credit.possible
        counts[:, at[1]] += (not credit.unscored, credit.tie, credit.unscored)
    return Cells(cell_names, cluster_names, earned, possible, counts[0], counts[1], counts[2])


@dataclass(frozen=True, slots=True)
class Ratio:
    """A measure or cell while it is computed: numerator and denominator may be arrays over resamples."""

    numerator: Any
    denominator: Any
    cells: frozenset[str]
    missing: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()

    @property
    def rate(self) -> Any:
        """numerator / denominator, NaN where the denominator is 0."""
        top, bottom = np.broadcast_arrays(np.asarray(self.numerator, float), np.asarray(self.denominator, float))
        return np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0)

    @property
    def absent(self) -> bool:
        """Nothing at all to compute with."""
        return not self.cells


def ratios(suite: Suite, cells: Sequence[str], earned: Any, possible: Any) -> dict[str, Ratio]:
    """Every cell and measure by name from sums [..., C]; leading axes (resamples) are kept."""
    result = {
        cell: Ratio(earned[..., index], possible[..., index], frozenset([cell])) for index, cell in enumerate(cells)
    }
    for measure in suite.measures:
        combined = _combine(measure, _parts(suite, measure, result, cells))
        if not (combined.absent and measure.name in result):  # a summary may state a measure instead of its parts
            result[measure.name] = combined
    return result


def cells_of_measures(suite: Suite, cells: Sequence[str]) -> dict[str, frozenset[str]]:
    """Which of the cells each measure (and cell) is made of."""
    nothing = np.zeros(len(cells))
    return {name: ratio.cells for name, ratio in ratios(suite, cells, nothing, nothing).items()}


def _parts(
    suite: Suite, measure: Measure, result: Mapping[str, Ratio], cells: Sequence[str]
) -> list[tuple[str, float, Ratio]]:
    parts = []
    for part, weight in measure.parts.items():
        if "*" in part:
            matching = [cell for cell in cells if fnmatchcase(cell, part)]
            parts += [(cell, weight, result[cell]) for cell in matching] or [(part, weight, _absent(suite, part))]
        else:
            parts.append((part, weight, result.get(part) or _absent(suite, part)))
    return parts


def _absent(suite: Suite, part: str) -> Ratio:
    """A part without data: masked where its subset is optional, missing otherwise."""
    declared = suite.subset(part) or suite.subset(part.split("/")[0])
    if declared is not None and declared.optional:
        return Ratio(0.0, 0.0, frozenset(), masked=(part,))
    return Ratio(0.0, 0.0, frozenset(), missing=(part,))


def _combine(measure: Measure, parts: list[tuple[str, float, Ratio]]) -> Ratio:
    present = [(weight, ratio) for _, weight, ratio in parts if not ratio.absent]
    cells = frozenset().union(*(ratio.cells for _, ratio in present))
    missing = tuple(name for _, _, ratio in parts for name in ratio.missing)
    masked = tuple(name for _, _, ratio in parts for name in ratio.masked)
    if not present:
        return Ratio(0.0, 0.0, cells, missing, masked)
    numerator: Any
    denominator: Any
    match measure.how:
        case "pool":
            numerator = sum(weight * ratio.numerator for weight, ratio in present)
            denominator = sum(weight * ratio.denominator for weight, ratio in present)
        case "mean" | "sum":
            numerator = sum(weight * ratio.rate for weight, ratio in present)
            total = sum(weight for weight, _ in present) if measure.how == "mean" else 1.0
            denominator = np.full(np.shape(numerator), total)
        case "harmonic":
            rates = [ratio.rate for _, ratio in present]
            numerator = len(rates) * np.prod(rates, axis=0)
            denominator = sum(np.prod(rates[:i] + rates[i + 1 :], axis=0) for i in range(len(rates)))
            # All rates 0: the harmonic mean is 0, not 0 / 0.
            denominator = np.where(np.sum(rates, axis=0) == 0, 1.0, denominator)
    return Ratio(numerator, denominator, cells, missing, masked)


def draws(clusters: int, resamples: int, *, seed: int = 0) -> Iterator[Array]:
    """[r, K] how often each cluster was drawn, in blocks of r resamples; the same seed gives the same draws."""
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWN // max(clusters, 1))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(clusters, size=(rows, clusters))
        offset = np.arange(rows)[:, None] * clusters
        counts = np.bincount((drawn + offset).ravel(), minlength=rows * clusters)
        yield counts.reshape(rows, clusters).astype(np.float64)


def measure_all(
    suite: Suite, credits: Sequence[Credit], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Measured]:
    """Every measure (in the suite's order), then every cell, with intervals where there are two clusters or more."""
    every = of_all(credits)
    scored = _measure(suite, credits, resamples=resamples, level=level, seed=seed)
    whole = scored if every == list(credits) else _measure(suite, every, resamples=resamples, level=level, seed=seed)
    return {name: replace(one, of_all=_share(whole[name])) for name, one in scored.items()}


def _share(one: Measured) -> Share:
    return Share(one.percent, one.numerator, one.denominator, one.low, one.high, one.of_present)


def _measure(
    suite: Suite, credits: Sequence[Credit], *, resamples: int, level: float, seed: int
) -> dict[str, Measured]:
    table = cells_of(credits)
    point = ratios(suite, table.cells, table.earned.sum(axis=0), table.possible.sum(axis=0))
    spread = _intervals(suite, table, resamples=resamples, level=level, seed=seed)
    order = [measure.name for measure in suite.measures]
    order += [cell for cell in table.cells if cell not in order]
    return {name: _measured(name, point[name], table, spread.get(name)) for name in order}


def _intervals(
    suite: Suite, table: Cells, *, resamples: int, level: float, seed: int
) -> dict[str, tuple[float, float]]:
    if len(table.clusters) < 2 or resamples < 1:
        return {}
    rates: dict[str, list[Array]] = {}
    stated = {measure.name for measure in suite.measures} & set(table.cells)  # says nothing of its spread
    for weight in draws(len(table.clusters), resamples, seed=seed):
        for name, ratio in ratios(suite, table.cells, weight @ table.earned, weight @ table.possible).items():
            if not ratio.absent and not ratio.cells & stated:
                rates.setdefault(name, []).append(np.broadcast_to(100 * ratio.rate, len(weight)))
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {name: _quantiles(np.concatenate(blocks), tails) for name, blocks in rates.items()}


def _quantiles(values: Array, tails: list[float]) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, tails) if len(known) else (math.nan, math.nan)
    return float(low), float(high)


def _measured(name: str, ratio: Ratio, table: Cells, interval: tuple[float, float] | None) -> Measured:
    index = [table.cells.index(cell) for cell in sorted(ratio.cells)]
    percent = 100 * float(ratio.rate) if not ratio.absent else math.nan
    whole = not ratio.missing and not ratio.absent
    low, high = interval if interval and whole else (math.nan, math.nan)
    return Measured(
        name=name,
        percent=percent if whole else math.nan,
        numerator=float(ratio.numerator) if whole else math.nan,
        denominator=float(ratio.denominator) if whole else math.nan,
        n=int(table.n[index].sum()),
        ties=int(table.ties[index].sum()),
        unscored=int(table.unscored[index].sum()),
        clusters=int((table.possible[:, index].sum(axis=1) > 0).sum()),
        low=low,
        high=high,
        missing=ratio.missing,
        masked=ratio.masked,
        of_present=math.nan if whole else percent,
    )
