"""How well people agree, and how each of them works: skill, speed, bias; every share with its count and interval.

Shares have Wilson intervals (95%; Wilson 1927). Skill is the probability of the true verdict under a Dawid-Skene fit
over the items that two or more people judged (data_pipelines.algorithms.dawid_skene). Biases are shares minus one half:
0 is none, and only clear verdicts count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms import dawid_skene
from data_pipelines.algorithms.votes import FIRST, SECOND, TIE, Votes
from data_pipelines.steps.agreement import ORDER, Level, alpha_interval
from labeling_ui.projects.work import counted

Z = NormalDist().inv_cdf(0.975)
_CELLS = 1_000_000  # draws times distinct rows that are fitted side by side


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `n`, with a 95% Wilson interval; NaN of none."""

    right: int
    n: int

    @property
    def value(self) -> float:
        return self.right / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        if not self.n:
            return float("nan"), float("nan")
        middle = (self.right + Z**2 / 2) / (self.n + Z**2)
        half = Z / (self.n + Z**2) * math.sqrt(self.right * (self.n - self.right) / self.n + Z**2 / 4)
        return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True, slots=True)
class Alpha:
    """Krippendorff's alpha of pair verdicts with its 95% bootstrap interval over items; NaN where it is undefined.

    Level nominal: any two different verdicts (first, tie, second) are as far apart as any others. Level ordinal: the
    verdicts with their strengths are one scale, from the first much better over a tie to the second much better.
    """

    level: Level
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Alpha on both levels, and how often two people say the same.

    `items` have two or more answers; `pairs` counts the pairs of answers that are the same, of all there are.
    """

    nominal: Alpha
    ordinal: Alpha
    items: int
    pairs: Share


@dataclass(frozen=True, slots=True)
class PersonReport:
    """One person's work. `skill` is None without a shared item; times are medians in seconds."""

    name: str
    answers: int
    skipped: int
    bad_items: int
    gold: Share
    repeated_same: Share
    with_others: Share
    skill: float | None
    first_shown: Share
    longer: Share
    active_s: float | None
    wall_s: float | None

    def warnings(self) -> list[str]:
        """What a lead should look at; empty where nothing stands out beyond chance."""
        results = []
        if self.gold.n >= 5 and self.gold.interval[1] < 0.8:
            results.append(f"known items: {self.gold.right} of {self.gold.n} right")
        if self.first_shown.n >= 20 and not self.first_shown.interval[0] <= 0.5 <= self.first_shown.interval[1]:
            results.append(f"chose the first shown {self.first_shown.right} of {self.first_shown.n} times")
        if self.repeated_same.n >= 5 and self.repeated_same.interval[1] < 0.8:
            results.append(f"repeats: {self.repeated_same.right} of {self.repeated_same.n} answered as before")
        if self.answers >= 10 and self.active_s is not None and self.active_s < 2.0:
            results.append(f"{self.active_s:.1f} s for an answer")
        return results


def agreement(work: pl.DataFrame) -> Agreement:
    """Agreement on the items' own answers; gold and repeats are left out."""
    answers = counted(work)
    counts: dict[Level, NDArray[np.int64]] = {
        "nominal": _votes(answers).counts()[:, ORDER],
        "ordinal": _scale_counts(answers),
    }
    alphas = {
        level: Alpha(level, value, (low, high))
        for level, votes in counts.items()
        for value, low, high in [alpha_interval(votes, level=level)]
    }
    of_item = answers.group_by("item").len()["len"]
    alike = answers.group_by("item", "answer").len()["len"]
    return Agreement(
        alphas["nominal"], alphas["ordinal"], int((of_item > 1).sum()), Share(_pairs(alike), _pairs(of_item))
    )


def _scale_counts(answers: pl.DataFrame) -> NDArray[np.int64]:
    """[items, 2 S + 1] votes from the first better by S to the second better by S; a strength not said counts as 1."""
    pairs = _pair_answers(answers)
    strength = pl.col("strength").fill_null(1).cast(pl.Int64)
    first, second = (pl.col("ranks").list.get(at) for at in (0, 1))
    value = pl.when(first < second).then(-strength).when(first > second).then(strength).otherwise(0)
    rows = pairs.select(item=pl.col("item").rank("dense").cast(pl.Int64) - 1, value=value)
    most = int(rows["value"].abs().max() or 0)  # type: ignore[arg-type]
    counts = np.zeros((rows["item"].n_unique(), 2 * most + 1), np.int64)
    np.add.at(counts, (rows["item"].to_numpy(), rows["value"].to_numpy() + most), 1)
    return counts


def _pair_answers(answers: pl.DataFrame) -> pl.DataFrame:
    return answers.filter(pl.col("ranks").list.len() == 2, ~pl.col("ranks").list.contains(None))


def _pairs(sizes: pl.Series) -> int:
    """How many pairs of answers there are within groups of these sizes."""
    counts = sizes.cast(pl.Int64)
    return int((counts * (counts - 1) // 2).sum())


def people_reports(work: pl.DataFrame) -> list[PersonReport]:
    """One report a person, by name."""
    skills = _skills(counted(work))
    others = _with_others(counted(work))
    repeats = _repeats(work)
    return [
        _report(name, work.filter(pl.col("rater") == name), skills.get(name), others, repeats)
        for name in work["rater"].unique().sort()
    ]


def _report(
    name: str, mine: pl.DataFrame, skill: float | None, others: dict[str, Share], repeats: dict[str, Share]
) -> PersonReport:
    ok = mine.filter(pl.col("verdict") == "ok")
    return PersonReport(
        name=name,
        answers=ok.height,
        skipped=int((mine["verdict"] == "skip").sum()),
        bad_items=int((mine["verdict"] == "bad_item").sum()),
        gold=_share(ok["gold_right"]),
        repeated_same=repeats.get(name, Share(0, 0)),
        with_others=others.get(name, Share(0, 0)),
        skill=skill,
        first_shown=_share(ok["chose_first_shown"]),
        longer=_share(ok["chose_longer"]),
        active_s=_median(ok["active_s"]),
        wall_s=_median(ok["wall_s"]),
    )


def _share(values: pl.Series) -> Share:
    known = values.drop_nulls()
    return Share(int(known.sum()), len(known))


def _median(values: pl.Series) -> float | None:
    result: Any = values.median()
    return None if result is None else float(result)


def _repeats(work: pl.DataFrame) -> dict[str, Share]:
    """Per person, how often a repeated item was answered as the first time."""
    again = work.filter(pl.col("slot").str.starts_with("repeat-") & (pl.col("verdict") == "ok"))
    both = again.join(counted(work), on=("rater", "item"), suffix="_before")
    summary = both.group_by("rater").agg(right=(pl.col("answer") == pl.col("answer_before")).sum(), n=pl.len())
    return {row["rater"]: Share(row["right"], row["n"]) for row in summary.to_dicts()}


def _with_others(answers: pl.DataFrame) -> dict[str, Share]:
    """Per person, how often another's answer to the same item is the same, over all such pairs of answers."""
    others = pl.len().over("item") - pl.len().over("item", "rater")
    alike = pl.len().over("item", "answer") - pl.len().over("item", "answer", "rater")
    pairs = answers.select("rater", alike=alike.cast(pl.Int64), others=others.cast(pl.Int64))
    summary = pairs.group_by("rater").agg(right=pl.col("alike").sum(), n=pl.col("others").sum())
    return {row["rater"]: Share(row["right"], row["n"]) for row in summary.filter(pl.col("n") > 0).to_dicts()}


def _votes(answers: pl.DataFrame) -> Votes:
    """The verdicts on pairs among the answers."""
    pairs = _pair_answers(answers)
    first, second = (pl.col("ranks").list.get(at) for at in (0, 1))
    summary = pairs.select(
        row=pl.col("item").rank("dense").cast(pl.Int64) - 1,
        rater=pl.col("rater").rank("dense").cast(pl.Int64) - 1,
        verdict=pl.when(first < second).then(FIRST).when(first > second).then(SECOND).otherwise(TIE),
    )
    raters = tuple(pairs["rater"].unique().sort())
    unknown = np.full(pairs.height, -1)
    row, rater, verdict = (summary[name].cast(pl.Int64).to_numpy() for name in summary.columns)
    return Votes(row, rater, verdict, unknown, raters, pairs["item"].n_unique())


def skill_intervals(work: pl.DataFrame, *, draws: int = 100, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95% bootstrap interval of each person's skill, over the items that two or more people judged."""
    votes = _votes(counted(work))
    shared = votes.only(votes.counts().sum(1)[votes.row] >= 2)
    if not len(shared.row):
        return {}
    distinct, weight_R = shared.distinct()
    n = int(weight_R.sum())
    drawn = np.random.default_rng(seed).multinomial(n, weight_R / weight_R.sum(), size=draws)
    parts = max(draws * len(weight_R) // _CELLS, 1)  # all draws at once may take more memory than a page should
    right = np.concatenate([dawid_skene.accuracy_of_draws(distinct, one) for one in np.array_split(drawn, parts)])
    low, high = np.percentile(right, [2.5, 97.5], axis=0)
    judged = {int(one) for one in shared.rater}
    return {name: (float(low[at]), float(high[at])) for at, name in enumerate(votes.raters) if at in judged}


def _skills(answers: pl.DataFrame) -> dict[str, float]:
    votes = _votes(answers)
    shared = votes.only(votes.counts().sum(1)[votes.row] >= 2)
    if not len(shared.row):
        return {}
    distinct, weight_R = shared.distinct()
    prior, confusion = dawid_skene.fit(distinct, weight_R=weight_R)
    right = dawid_skene.accuracy(prior, confusion)
    return {name: float(right[at]) for at, name in enumerate(votes.raters) if (shared.rater == at).any()}
