"""Aggregate several annotators' votes into one soft label per row: the distribution is kept, never only the majority.

Methods, each in a module of its own: `majority` (vote shares), `reliability` (shares weighed by each rater's agreement
with the others), `dawid_skene` (a confusion matrix per rater), `mace` (a competence per rater). The label is
p = [P(first) + P(tie) / 2, P(second) + P(tie) / 2], its `n_votes` the votes behind it, its ranks follow from p.

Skill is learned only from rows on which two or more raters voted: where a rater stands alone, the model would find the
rater in perfect agreement with the label made from that one vote. A single vote by a rater whose skill is known is
tempered by it (a rater right four times in five gives p = 0.8); a single vote by an unknown rater leaves the row's
label as it was. Rows of other kinds, without votes, or with more than two responses pass unchanged.

p is rounded to six digits, so that a processor's last bit makes no new version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms import dawid_skene, mace, majority, reliability
from data_pipelines.algorithms.votes import FIRST, SECOND, TIE, Votes, pair_votes
from data_pipelines.scopes import Columns
from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError
from rmkit.reliability.annotators import Few

Method = Literal["majority", "reliability", "dawid_skene", "mace"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """`few` says what method reliability does with raters of fewer than two comparable votes, `smoothing` belongs to
    dawid_skene, `variational` to mace: Bayesian with the paper's priors, or its plain EM."""

    method: Method = "dawid_skene"
    few: Few = "refuse"
    symmetric: bool = True
    smoothing: float = 4.0
    variational: bool = True
    min_margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_margin <= 1:
            raise ConfigError(f"aggregate: min_margin is a |2p - 1| in [0, 1], got {self.min_margin}")
        if self.smoothing < 0:
            raise ConfigError(f"aggregate: smoothing is a number of pseudo-votes >= 0, got {self.smoothing}")


SCOPE = Columns("id", "kind", "votes", "p", "ranks", "n_votes", "method", "margin", lengths=("responses",))


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with new p, ranks, n_votes and method; drops those with |2p - 1| < min_margin."""
    votes = pair_votes(frame)
    n_votes = votes.counts().sum(1)
    shared = votes.only(n_votes[votes.row] >= 2)
    prior, confusion, skill = _fit(shared, config)
    known = np.isin(np.arange(len(votes.raters)), shared.rater)
    match config.method:
        case "majority":
            truth = majority.posterior(votes)
            labeled = n_votes >= 1
        case "reliability":
            truth = reliability.posterior(votes, few=config.few)
            labeled = ~np.isnan(truth[:, FIRST])
        case _:
            truth = dawid_skene.posterior(votes, prior, confusion)
            labeled = n_votes >= 2
            labeled[votes.row[(n_votes[votes.row] == 1) & known[votes.rater]]] = True
    relabeled = _with_label(frame, truth[:, FIRST] + truth[:, TIE] / 2, labeled, n_votes, config.method)
    margin = (2 * pl.col("p").list.first() - 1).abs()
    unclear = (pl.col("responses").list.len() == 2) & (margin.round(9) < config.min_margin)
    summary = relabeled.select(
        reason=pl.when(unclear).then(pl.lit("no clear majority")),
        evidence=pl.when(unclear).then(pl.format("p = {}", pl.col("p").list.first().round(4))),
    )
    facts = {
        "method": config.method,
        "rows_labeled": int(labeled.sum()),
        "rows_with_several_votes": int((n_votes >= 2).sum()),
        "rows_left_as_they_were": int((~labeled).sum()),
        "winner_changed": _changed(frame, relabeled),
        "raters": _skills(shared, skill) if len(shared.row) else [],
    }
    return partition(relabeled, summary["reason"], evidence=summary["evidence"], facts=facts)


def _fit(shared: Votes, config: Config) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Prior, confusion per rater, and skill [raters]: mace's competence, otherwise the accuracy.

    Where no two raters share a row, nothing is known and every rater is average. For majority the accuracy is that of
    the confusion estimated against Dawid-Skene's truth, which is fairer than agreement with a majority that the rater
    helped to make.
    """
    n = len(shared.raters)
    if not len(shared.row):
        return np.full(3, 1 / 3), np.full((n, 3, 3), 1 / 3), np.full(n, np.nan)
    if config.method == "mace":
        return mace.fit(shared, symmetric=config.symmetric, variational=config.variational)
    prior, confusion = dawid_skene.fit(shared, symmetric=config.symmetric, smoothing=config.smoothing)
    return prior, confusion, dawid_skene.accuracy(prior, confusion)


def _with_label(
    frame: pl.DataFrame,
    p_first: NDArray[np.float64],
    labeled: NDArray[np.bool_],
    n_votes: NDArray[np.int64],
    method: str,
) -> pl.DataFrame:
    first = pl.Series("_first", p_first).round(6)
    inputs = frame.with_columns(first, pl.Series("_labeled", labeled), pl.Series("_n", n_votes))
    second = (1 - pl.col("_first")).round(6)
    tie, wins = pl.col("_first") == second, pl.col("_first") > second
    same = wins.eq_missing(pl.col("p").list.first() > pl.col("p").list.last()) & ~tie
    new = {
        "p": pl.concat_list("_first", second),
        "ranks": pl.concat_list((~tie & ~wins).cast(pl.Int32), (~tie & wins).cast(pl.Int32)),
        "n_votes": pl.col("_n").cast(pl.Int32),
        "method": pl.lit(method),
        "margin": pl.when(same).then(pl.col("margin")),  # the strength given for another winner says nothing
    }
    chosen = [pl.when("_labeled").then(value).otherwise(pl.col(name)).alias(name) for name, value in new.items()]
    return inputs.with_columns(chosen).drop("_first", "_labeled", "_n").cast(frame.schema)


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> int:
    def side(frame: pl.DataFrame) -> pl.Series:
        return frame.select((pl.col("p").list.first() - pl.col("p").list.last()).sign())["p"]

    return int((side(before) * side(after) < 0).sum())


def _skills(shared: Votes, skill: NDArray[np.float64]) -> list[dict[str, object]]:
    """Per rater with shared rows: skill, preference for the response shown first (0 is none), number of votes."""
    n = np.bincount(shared.rater, minlength=len(shared.raters))
    bias = _first_shown_bias(shared)
    return [
        {
            "rater": name,
            "accuracy": round(float(skill[at]), 4),
            "bias_first": None if np.isnan(bias[at]) else round(float(bias[at]), 4),
            "n": int(n[at]),
        }
        for at, name in enumerate(shared.raters)
        if n[at]
    ]


def _first_shown_bias(votes: Votes) -> NDArray[np.float64]:
    """[raters] share of clear verdicts for the response shown first, minus a half; NaN where no order is known."""
    known = (votes.first_shown >= 0) & (votes.verdict != TIE)
    for_shown = np.where(votes.first_shown == 1, votes.verdict == FIRST, votes.verdict == SECOND)
    size = len(votes.raters)
    total = np.bincount(votes.rater[known], minlength=size)
    chosen = np.bincount(votes.rater[known], for_shown[known], minlength=size)
    return np.asarray(np.divide(chosen, total, out=np.full(size, np.nan), where=total > 0) - 0.5)
