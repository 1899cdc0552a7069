"""What a grid of denoising results says: one line per method and noise, tested against standard training; advice.

    accuracy    mean over seeds and test pairs, ties one half
    interval    of the difference to standard training on the same flips, seeds and test pairs: seeds and test families
                are both resampled (2,000 draws, percentile, 95%)
    p           of a normal test with the draws' deviation; p_holm: Holm's correction over all methods and noises of the
                table but the ceiling
    disparity   how far the two models of a method are apart on the test pairs (evaluation.denoise.methods)
    auc         probability that a right label has a larger margin than a wrong one, by the margins a method decides
                with; for standard training after its first epoch, before it has learned the wrong labels by heart

Advice looks at the noisy cells alone. A method is recommended where it beats standard training after correction in
most of them and loses in none; it is the best such one by mean gain. Where no filter is among those, the advice is not
to filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.denoise.grid import Result
from evaluation.scoring.paired import holm
from rmkit.metrics.bootstrap import cluster_sums

CEILING, FLOOR = "clean", "standard"
RESAMPLES = 2000
SEPARATES = 0.6  # AUC below which margins are told to say hardly anything about the labels
ALPHA = 0.05
LOSSES = ("label_smoothing", "robust", "ensemble", "wco", "uwo")  # these keep every pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One method under one noise; accuracies and differences in percent, NaN-free (None where nothing is known)."""

    kind: str
    rate: float
    method: str
    seeds: int
    accuracy: float
    seed_sd: float | None
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None
    kept: float | None
    kept_precision: float | None
    found: float | None
    auc: float | None
    disparity: float | None = None


def summarize(results: Sequence[Result], family: NDArray[np.int64], *, seed: int = 0) -> list[Line]:
    """The lines in the order of the results; every noise needs the method `standard`."""
    grouped: dict[tuple[str, float, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.cell.kind, result.cell.rate, result.method), []).append(result)
    lines = [_line(key, group, grouped[*key[:2], FLOOR], family, seed) for key, group in grouped.items()]
    tested = [at for at, line in enumerate(lines) if line.p is not None and line.method != CEILING]
    for at, p in zip(tested, holm([lines[at].p or 0.0 for at in tested]), strict=True):
        lines[at] = Line(**(asdict(lines[at]) | {"p_holm": p}))
    return lines


def _line(
    key: tuple[str, float, str], group: Sequence[Result], floor: Sequence[Result], family: NDArray[np.int64], seed: int
) -> Line:
    kind, rate, method = key
    mine = np.stack([result.credit for result in group]).astype(np.float64)
    drawn = resampled(mine, family, seed=seed)
    per_seed = 100 * mine.mean(axis=1)
    gain: dict[str, float | None] = dict.fromkeys(("difference", "difference_low", "difference_high", "p"))
    if method != FLOOR:
        gain = _gain(mine - np.stack([result.credit for result in floor]), family, seed)
    return Line(
        kind=kind,
        rate=rate,
        method=method,
        seeds=len(group),
        accuracy=float(per_seed.mean()),
        seed_sd=float(per_seed.std(ddof=1)) if len(group) > 1 else None,
        low=float(100 * np.quantile(drawn, 0.025)),
        high=float(100 * np.quantile(drawn, 0.975)),
        **gain,
        p_holm=None,
        **{
            name: _mean(result.facts.get(name) for result in group)
            for name in ("kept", "kept_precision", "found", "auc", "disparity")
        },
    )


def _gain(difference_Sn: NDArray[np.float64], family: NDArray[np.int64], seed: int) -> dict[str, float | None]:
    drawn = resampled(difference_Sn, family, seed=seed)
    mean, sd = float(difference_Sn.mean()), float(drawn.std())
    return {
        "difference": 100 * mean,
        "difference_low": float(100 * np.quantile(drawn, 0.025)),
        "difference_high": float(100 * np.quantile(drawn, 0.975)),
        "p": math.erfc(abs(mean) / sd / math.sqrt(2)) if sd > 0 else float(mean == 0),
    }


def resampled(value_Sn: NDArray[np.float64], family: NDArray[np.int64], *, seed: int = 0) -> NDArray[np.float64]:
    """[RESAMPLES] means after drawing seeds and families with replacement."""
    generator = np.random.default_rng(seed)
    counted = cluster_sums(family, np.ones(value_Sn.shape[1]), *value_Sn)  # [F, 1 + S]
    size, sums = counted[:, 0], counted[:, 1:]
    n_seeds, n_families = sums.shape[1], len(sums)
    seeds_BS = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=RESAMPLES) / n_seeds
    results = []
    for part in np.array_split(seeds_BS, max(1, RESAMPLES * n_families // 4_000_000)):
        families_BF = generator.multinomial(n_families, np.full(n_families, 1 / n_families), size=len(part))
        results.append(((families_BF @ sums) * part).sum(axis=1) / (families_BF @ size))
    return np.concatenate(results)


def advice(lines: Sequence[Line]) -> dict[str, object]:
    """`recommend` (a method or None), whether it is a `filter`, `reason` in a sentence, and `cautions`: what hurts."""
    noisy = [line for line in lines if line.rate > 0]
    separation = _mean(line.auc for line in noisy if line.method == FLOOR)
    gains: dict[str, list[Line]] = {}
    for line in noisy:
        if line.method not in (FLOOR, CEILING):
            gains.setdefault(line.method, []).append(line)
    good = {name: names for name, names in gains.items() if _wins(names) > len(names) / 2 and not _losses(names)}
    best = max(good, key=lambda name: mean_gain(good[name]), default=None)
    summary = {"recommend": best, "filter": best is not None and best not in LOSSES, "auc": separation}
    shown = gains if best is None else {best: gains[best]}
    seen = smallest_seen(noisy)
    reason = _reason(best, good, _separation(noisy), seen)
    return summary | {"smallest_seen": seen, "reason": reason, "cautions": _cautions(shown)}


def smallest_seen(lines: Sequence[Line]) -> float | None:
    """The difference in points that this test split shows in four of five runs: 2.8 standard errors, the median."""
    width = [
        line.difference_high - line.difference_low
        for line in lines
        if line.difference_high is not None and line.difference_low is not None and line.method != CEILING
    ]
    return float(np.median(width) / (2 * 1.96) * 2.8) if width else None


def _separation(noisy: Sequence[Line]) -> str:
    """What standard training's margins tell about the labels, by kind of noise; "" where nothing is known."""
    kinds = dict.fromkeys(line.kind for line in noisy)
    names = {kind: _mean(line.auc for line in noisy if (line.method, line.kind) == (FLOOR, kind)) for kind in kinds}
    known = {kind: auc for kind, auc in names.items() if auc is not None}
    if not known:
        return ""
    text = ", ".join(f"{auc:.2f} under {kind} noise" for kind, auc in known.items())
    if max(known.values()) < SEPARATES:
        return f"; the margins hardly separate right from wrong labels (AUC {text}; a coin has 0.50)"
    return f"; the margins separate right from wrong labels with AUC {text}"


def _reason(best: str | None, good: Mapping[str, Sequence[Line]], separates: str, seen: float | None) -> str:
    if best is None:
        return (
            "do not filter: no method beats standard training in most of the noises tried without losing in another"
            + separates
            + ("" if seen is None else f"; differences under {seen:.1f} points are not seen with this test split")
        )
    lines = good[best]
    verb = f"do not filter, train with {best}" if best in LOSSES else f"use {best}"
    gain = (
        f"{verb}: {mean_gain(lines):+.1f} points over standard training, the mean of {len(lines)} noises; better in "
        f"{_wins(lines)} after correction, worse in none{separates}"
    )
    close = [name for name in good if name != best and mean_gain(lines) - mean_gain(good[name]) < 0.5]
    return gain + (f"; within half a point of it: {', '.join(close)}" if close else "")


def _wins(lines: Sequence[Line]) -> int:
    return sum(_sure(line) and (line.difference or 0) > 0 for line in lines)


def _losses(lines: Sequence[Line]) -> int:
    return sum(_sure(line) and (line.difference or 0) < 0 for line in lines)


def _sure(line: Line) -> bool:
    return line.p_holm is not None and line.p_holm < ALPHA


def mean_gain(lines: Sequence[Line]) -> float:
    """Mean difference to standard training in percent points."""
    return float(np.mean([line.difference for line in lines]))


def _cautions(gains: Mapping[str, Sequence[Line]]) -> list[str]:
    return [
        f"{name} loses {-line.difference:.1f} points to standard training under {line.kind} noise of {line.rate:.0%}"
        for name, lines in gains.items()
        for line in lines
        if line.difference is not None and line.difference < 0 and _sure(line)
    ]


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None
