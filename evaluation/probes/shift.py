"""Distribution shift: does a second reward model (an implicit one, say) lose more than the first where data move?

Cells are sets of pairs: `id`, and out of distribution `prompt` (new prompts), `response` (other generators) and `both`;
`train` is a control. In every cell only pairs that both models scored count (the others are dropped from both).

    accuracy    mean 1[m > 0] + 1/2 1[m = 0], m = score of the better minus score of the worse response
    difference  first minus second on the same pairs, intervals from whole prompts resampled (percentile, 2,000, 95%)
    OOD mean    mean of the cells' differences; a prompt that is in several cells is drawn in all of them at once (where
                the cells are alike in kind: prompts of a file are not known to be families of a version)
    largest     the largest difference of a cell (no interval: a maximum of noisy numbers is biased upwards)

Controls: the accuracy of the longer response (characters, equal lengths 1/2), the uncentered correlation of each margin
with the length difference, and the implicit reward per token instead of its sum. Lin et al. 2024 (arXiv 2409.03650)
report 3% in the mean and up to 7% between explicit and implicit reward models on five shifted settings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.probes.comparisons import in_percent
from evaluation.probes.style import correlation
from evaluation.scoring.measures import draws
from rmkit.metrics import pair_accuracy, paired_difference
from rmkit.metrics.accuracy import TiePolicy, pair_credit

Array = NDArray[np.float64]
OUT_OF_DISTRIBUTION = ("prompt", "response", "both")
CELLS = ("train", "id", *OUT_OF_DISTRIBUTION)
SIDES = ("first", "second")


@dataclass(frozen=True, slots=True)
class Side:
    """One model's margins [n], NaN where unscored for the reason [n]; `per_token` [n] where the model has it."""

    margin: Array
    unscored: tuple[str | None, ...]
    per_token: Array | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """n pairs: what is resampled [n] (prompt families of versions, else prompts), the prompts themselves [n],
    characters of the better minus the worse response [n], and both models' answers."""

    name: str
    clusters: tuple[str, ...]
    prompts: tuple[str, ...]
    longer: Array
    first: Side
    second: Side

    @property
    def scored(self) -> NDArray[np.bool_]:
        """[n] which pairs both models scored."""
        return ~(np.isnan(self.first.margin) | np.isnan(self.second.margin))


def shift_probe(cells: Sequence[Cell], *, ties: TiePolicy = "half", tie_width: float = 0.0) -> dict[str, Any]:
    """Every cell and the cells out of distribution together; margins up to `tie_width` are ties."""
    inside = {prompt for cell in cells if cell.name == "id" for prompt in cell.prompts}
    summary = {cell.name: _cell_facts(cell, inside, ties=ties, tie_width=tie_width) for cell in cells}
    shifted = [cell for cell in cells if cell.name in OUT_OF_DISTRIBUTION and cell.scored.any()]
    gains = [_gain(cell, ties=ties, tie_width=tie_width) for cell in shifted]
    return {"ties": ties, "tie_width": tie_width, "cells": summary, "out_of_distribution": _together(shifted, gains)}


def _gain(cell: Cell, *, ties: TiePolicy, tie_width: float) -> Array:
    """[n] what the first earns more than the second, NaN where one has no score."""
    ones = np.ones(len(cell.clusters))
    first, second = (pair_credit(s.margin, ones, ties=ties, tie_width=tie_width) for s in (cell.first, cell.second))
    gain: Array = first - second
    return gain


def _cell_facts(cell: Cell, inside: set[str], *, ties: TiePolicy, tie_width: float) -> dict[str, object]:
    scored, clusters = cell.scored, np.array(cell.clusters)
    difference = paired_difference(_gain(cell, ties=ties, tie_width=tie_width), np.zeros(len(clusters)), clusters)
    by_key: dict[str, Any] = {
        "pairs": len(clusters),
        "scored": int(scored.sum()),
        "dropped": int((~scored).sum()),
        "reasons": _reasons(cell),
        "prompts": len(set(clusters[scored].tolist())),
        "prompts_in_id": len(set(cell.prompts) & inside),
        "difference": {
            "points": 100 * difference.value,
            "low": math.nan if difference.interval is None else 100 * difference.interval.low,
            "high": math.nan if difference.interval is None else 100 * difference.interval.high,
        },
        "length_rule": _accuracy(cell.longer[scored], clusters[scored], ties="half", tie_width=0.0),
    }
    for name, side in zip(SIDES, (cell.first, cell.second), strict=True):
        by_key[name] = _accuracy(side.margin[scored], clusters[scored], ties=ties, tie_width=tie_width)
        by_key[name]["length_correlation"] = correlation(side.margin[scored], cell.longer[scored])
        if side.per_token is not None:
            per_token = _accuracy(side.per_token[scored], clusters[scored], ties=ties, tie_width=0.0)
            by_key[name]["per_token"] = per_token
    return by_key


def _accuracy(margin: Array, clusters: NDArray[Any], *, ties: TiePolicy, tie_width: float) -> dict[str, object]:
    return in_percent(pair_accuracy(margin, np.ones(len(margin)), clusters=clusters, ties=ties, tie_width=tie_width))


def _reasons(cell: Cell) -> dict[str, int]:
    """How many pairs each model could not score, by reason; a pair may be in two of them."""
    result = Counter(
        f"{name}: {reason}"
        for name, side in zip(SIDES, (cell.first, cell.second), strict=True)
        for reason, margin in zip(side.unscored, side.margin, strict=True)
        if math.isnan(margin)
    )
    return dict(result.most_common())


def _together(cells: Sequence[Cell], gains: Sequence[Array], *, resamples: int = 2000) -> dict[str, object] | None:
    """Mean and largest of the cells' differences in percent points; None without a shifted cell."""
    if not cells:
        return None
    prompts = {prompt: k for k, prompt in enumerate(sorted({c for cell in cells for c in cell.clusters}))}
    gained, counted = np.zeros((2, len(prompts), len(cells)))
    for j, (cell, gain) in enumerate(zip(cells, gains, strict=True)):
        at, known = np.array([prompts[cluster] for cluster in cell.clusters]), ~np.isnan(gain)
        np.add.at(gained[:, j], at[known], gain[known])
        np.add.at(counted[:, j], at[known], 1.0)
    points = 100 * gained.sum(axis=0) / counted.sum(axis=0)
    low, high = _interval(gained, counted, resamples) if len(prompts) > 1 else (math.nan, math.nan)
    largest = int(points.argmax())
    return {
        "cells": [cell.name for cell in cells],
        "mean": {"points": float(points.mean()), "low": low, "high": high},
        "largest": {"points": float(points[largest]), "cell": cells[largest].name},
    }


def _interval(gained: Array, counted: Array, resamples: int) -> tuple[float, float]:
    """A resample in which a cell got no prompt says nothing and is left out."""
    means = []
    for weight in draws(len(gained), resamples):
        top, bottom = weight @ gained, weight @ counted
        rate = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
        means.append(100 * rate.mean(axis=1))
    known = np.concatenate(means)
    low, high = np.nanquantile(known, [0.025, 0.975]) if not np.isnan(known).all() else (math.nan, math.nan)
    return float(low), float(high)
