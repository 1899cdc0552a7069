"""Two models on the same items: differences with intervals, tests, and Holm's correction over many of them.

Only credits that both models earned (same item, same cell, neither unscored) enter.

    interval    whole prompts are resampled, the same draw for both models (percentile, 2,000 resamples, 95%)
    p           randomization test: under the null hypothesis the two models' labels may be swapped prompt by prompt;
                p = (1 + #{|d*| >= |d|}) / (1 + R) over R = 10,000 random swaps, or exactly over all 2^K of them where
                that is fewer (Fisher 1935; Ernst 2004). It holds for any measure, F1 and Ties included, and for
                prompts with several items. On one pair a prompt it agrees with McNemar's exact test.
    p_holm      Holm 1979: the ordered p are multiplied by m, m - 1, ... and made monotone; controls the chance of any
                false claim among m tests
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.measures import Array, Cells, cells_of, cells_of_measures, draws, ratios
from evaluation.suites.items import Credit
from evaluation.suites.suite import Suite
from rmkit.errors import DataError

_ROUNDING = 1e-9  # percent points: differences equal up to rounding count as equal
_DRAWN = 2_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second in percent points on `n` shared credits of `clusters` prompts; NaN where one is missing.

    `only_first` and `only_second` count the credits where one model earned more than the other, `unscored_first` and
    `unscored_second` those of the measure that are left out because that model has no score.
    """

    measure: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int
    clusters: int
    only_first: int
    only_second: int
    unscored_first: int
    unscored_second: int

    def as_json(self) -> dict[str, Any]:
        """The fields with null for NaN."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}


def shared(first: Sequence[Credit], second: Sequence[Credit]) -> tuple[list[Credit], list[Credit]]:
    """The scored credits that both have, in the same order. Raises DataError where they share no item at all."""
    if not {credit.item for credit in first} & {credit.item for credit in second}:
        raise DataError("the two models share no scored item; evaluate them on the same data")
    mine, other = scored_credits(first), scored_credits(second)
    keys = [key for key in mine if key in other]
    return [mine[key] for key in keys], [other[key] for key in keys]


def scored_credits(credits: Sequence[Credit]) -> dict[tuple[str, str, int], Credit]:
    """The scored credits by item, cell and number within them: an item may earn several times in one cell (RM-Bench's
    three hard comparisons), always in the same order."""
    counts: dict[tuple[str, str], int] = {}
    by_key = {}
    for credit in credits:
        number = counts.get((credit.item, credit.cell), 0)
        counts[credit.item, credit.cell] = number + 1
        if not credit.unscored:
            by_key[credit.item, credit.cell, number] = credit
    return by_key


def differences(
    suite: Suite,
    first: Sequence[Credit],
    second: Sequence[Credit],
    *,
    measures: Sequence[str] | None = None,
    resamples: int = 2000,
    swaps: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """The difference of every measure (default: the suite's declared ones), p_holm over all of them.

    Raises DataError for models that were not asked the same; where they were and none of it was scored by both, the
    differences are NaN.
    """
    ours, theirs = shared(first, second)
    a = cells_of(ours)
    b = cells_of(theirs, cells=a.cells, clusters=a.clusters)
    target = list(measures if measures is not None else [measure.name for measure in suite.measures])
    observed = _measure_differences(suite, a.cells, a.earned.sum(axis=0), b.earned.sum(axis=0), a.possible.sum(axis=0))
    spread = _bootstrap(suite, a, b, resamples=resamples, seed=seed)
    extreme = _randomize(suite, a, b, observed, swaps=swaps, seed=seed + 1)
    result = [
        _difference(suite, name, (a, b), (ours, theirs), spread.get(name), extreme.get(name, math.nan), level=level)
        for name in target
    ]
    return with_holm(_with_unscored(suite, result, first, second))


def _with_unscored(
    suite: Suite, result: Sequence[Difference], first: Sequence[Credit], second: Sequence[Credit]
) -> list[Difference]:
    cells = cells_of_measures(suite, list(dict.fromkeys(credit.cell for credit in (*first, *second))))
    lost = [[credit.cell for credit in credits if credit.unscored] for credits in (first, second)]
    counts = [[sum(cell in cells.get(one.measure, ()) for cell in side) for side in lost] for one in result]
    return [
        replace(one, unscored_first=mine, unscored_second=other)
        for one, (mine, other) in zip(result, counts, strict=True)
    ]


def with_holm(result: Sequence[Difference]) -> list[Difference]:
    """The same differences with `p_holm` over all that have a p."""
    known = [one.p for one in result if not math.isnan(one.p)]
    adjusted = iter(holm(known))
    return [one if math.isnan(one.p) else replace(one, p_holm=next(adjusted)) for one in result]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the given order, at most 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _measure_differences(suite: Suite, cells: Sequence[str], a: Any, b: Any, possible: Any) -> dict[str, Any]:
    """First minus second of every measure and cell in percent points; measures with missing parts are left out."""
    first, second = ratios(suite, cells, a, possible), ratios(suite, cells, b, possible)
    whole = [name for name, ratio in first.items() if not ratio.absent and not ratio.missing]
    return {name: 100 * (first[name].rate - second[name].rate) for name in whole}


def _bootstrap(suite: Suite, a: Cells, b: Cells, *, resamples: int, seed: int) -> dict[str, Array]:
    results: dict[str, list[Array]] = {}
    if len(a.clusters) < 2:
        return {}
    for weight in draws(len(a.clusters), resamples, seed=seed):
        sums = weight @ a.earned, weight @ b.earned, weight @ a.possible
        for name, values in _measure_differences(suite, a.cells, *sums).items():
            results.setdefault(name, []).append(np.broadcast_to(values, len(weight)))
    return {name: np.concatenate(blocks) for name, blocks in results.items()}


def _randomize(
    suite: Suite, a: Cells, b: Cells, observed: Mapping[str, Any], *, swaps: int, seed: int
) -> dict[str, float]:
    """p of every measure."""
    gain = b.earned - a.earned
    sums = a.earned.sum(axis=0), b.earned.sum(axis=0), a.possible.sum(axis=0)
    differing = np.flatnonzero(np.any(gain != 0, axis=1))  # swapping the others changes nothing
    exact = 2 ** min(len(differing), 60) <= swaps
    hits = dict.fromkeys(observed, 0)
    total = 0
    for swapped in _all_swaps(len(differing)) if exact else _random_swaps(len(differing), swaps, seed=seed):
        moved = swapped @ gain[differing]
        drawn = _measure_differences(suite, a.cells, sums[0] + moved, sums[1] - moved, sums[2])
        for name, value in observed.items():
            hits[name] += int(np.sum(np.abs(drawn[name]) >= abs(value) - _ROUNDING))
        total += len(swapped)
    extra = 0 if exact else 1
    return {
        name: math.nan if np.isnan(observed[name]) else (count + extra) / (total + extra)
        for name, count in hits.items()
    }


def _all_swaps(n: int) -> Iterator[Array]:
    yield np.array(list(itertools.product((0.0, 1.0), repeat=n))).reshape(2**n, n)


def _random_swaps(n: int, swaps: int, *, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWN // max(n, 1))
    for start in range(0, swaps, block):
        yield generator.integers(2, size=(min(block, swaps - start), n)).astype(np.float64)


def _difference(
    suite: Suite,
    name: str,
    tables: tuple[Cells, Cells],
    credits: tuple[Sequence[Credit], Sequence[Credit]],
    resampled: NDArray[np.float64] | None,
    p: float,
    *,
    level: float,
) -> Difference:
    result = [ratios(suite, t.cells, t.earned.sum(axis=0), t.possible.sum(axis=0)) for t in tables]
    ratio = result[0].get(name)
    whole = ratio is not None and not ratio.absent and not ratio.missing
    values = [100 * float(one[name].rate) if whole else math.nan for one in result]
    pairs = [(x, y) for x, y in zip(*credits, strict=True) if ratio is not None and x.cell in ratio.cells]
    low, high = math.nan, math.nan
    if resampled is not None and not np.isnan(resampled).all():
        low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Difference(
        measure=name,
        first=values[0],
        second=values[1],
        difference=values[0] - values[1],
        low=float(low),
        high=float(high),
        p=p,
        p_holm=math.nan,
        n=len(pairs),
        clusters=len({x.cluster for x, _ in pairs}),
        only_first=sum(x.earned > y.earned for x, y in pairs),
        only_second=sum(x.earned < y.earned for x, y in pairs),
        unscored_first=0,
        unscored_second=0,
    )
