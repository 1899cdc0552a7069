"""What suggestions do to answers: who was drawn to see them against who was not, and choices before against after.

Which items show their suggestion is drawn for each person (`suggestion_share`), so the two groups differ in nothing
else: `effect` is how much more often those who were to see it say what is suggested. It is no merit: where known items
are among them, `right_first` and `right` say whether what people moved to was right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from labeling_ui.quality import Share

DRAWS = 1_000


@dataclass(frozen=True, slots=True)
class Anchoring:
    """`shown` and `hidden` are answers that follow the suggestion, of those drawn to see it and of the others.

    `likeness` is the mean of how far answers say the same (of edits the share of text in common) in both; `effect` is
    their difference with its 95% bootstrap interval over items, NaN where one is empty. Of the answers whose first
    choice was another, `moved` went over to the suggestion. `right_first` and `right` are of known items with a first
    choice.
    """

    shown: Share
    hidden: Share
    likeness: tuple[float, float]
    effect: float
    interval: tuple[float, float]
    moved: Share
    right_first: Share
    right: Share


def anchoring(work: pl.DataFrame, *, seed: int = 0) -> Anchoring | None:
    """Of the answers to items with a suggestion; None where there are none."""
    rows = work.filter(pl.col("suggestion").is_not_null() & (pl.col("verdict") == "ok"))
    if rows.is_empty():
        return None
    rows = rows.select("item", "gold_right", "suggestion").unnest("suggestion")
    drawn, alike = rows["drawn"].to_numpy(), rows["alike"].to_numpy()
    means = (_mean(alike[drawn]), _mean(alike[~drawn]))
    differed = rows.filter(pl.col("first_alike") < 1)
    known = rows.filter(pl.col("first_right").is_not_null())
    return Anchoring(
        shown=_followed(alike[drawn]),
        hidden=_followed(alike[~drawn]),
        likeness=means,
        effect=means[0] - means[1],
        interval=_interval(rows, seed),
        moved=_followed(differed["alike"].to_numpy()),
        right_first=Share(int(known["first_right"].sum()), known.height),
        right=Share(int(known["gold_right"].sum()), known.height),
    )


def _followed(alike: NDArray[np.float64]) -> Share:
    return Share(int((alike == 1).sum()), len(alike))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _interval(rows: pl.DataFrame, seed: int) -> tuple[float, float]:
    """Items are drawn with all their answers: two answers to one item are about the same suggestion."""
    sums = (
        rows.group_by("item")
        .agg(
            shown=pl.col("alike").filter(pl.col("drawn")).sum(),
            n_shown=pl.col("drawn").sum(),
            hidden=pl.col("alike").filter(~pl.col("drawn")).sum(),
            n_hidden=(~pl.col("drawn")).sum(),
        )
        .sort("item")
        .drop("item")
        .cast(pl.Float64)
        .to_numpy()
    )
    n = len(sums)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS) @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        effects = drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3]
    effects = effects[np.isfinite(effects)]
    if len(effects) < DRAWS / 2:
        return float("nan"), float("nan")
    low, high = np.percentile(effects, [2.5, 97.5])
    return float(low), float(high)
