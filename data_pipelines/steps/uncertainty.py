"""UPO's estimator as a filter: of the labels it agrees with, those it is surest of are kept.

Estimators with dropout (rmkit.heads.pair_estimator) are trained on K - 1 folds of prompt families and judge the
remaining one in both orders, T passes each; margins come from cross-fitted reward heads. `selector`: lowest BALD,
highest mean probability, largest margin, or drawn by (1 - BALD)^mu as printed. `action` soft_label trains on 1 - alpha
instead (rmkit.reliability.upo). Mean probability and margin did as well as BALD in our measurements.

`model` names a fine-tuned reward model that judges instead: T passes with dropout in all its layers; its margin is the
same in both orders. It must not have been trained on these labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.weighing import (
    CrossFitConfig,
    by_label,
    cross_fitted,
    family_of,
    feature_pairs,
    judged_pairs,
    part_of,
    weighed,
)
from data_pipelines.steps import Context, StepResult
from rmkit.heads.pair_estimator import EstimatorConfig, cross_fitted_uncertainty
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.label_weights import check_enough
from rmkit.reliability.uncertainty import Uncertainty, from_scores
from rmkit.reliability.upo import UpoConfig, select_certain


@dataclass(frozen=True, kw_only=True)
class Config(CrossFitConfig, UpoConfig):
    """`hidden`, `lr`, `batch_pairs` and `epochs` are the reward heads'; the estimator takes the first two as well."""

    model: str = ""
    passes: int = 10
    estimator_dropout: float = 0.1
    estimator_epochs: int = 5

    def __post_init__(self) -> None:
        for kind in (CrossFitConfig, UpoConfig):
            part_of(self, kind)
        self.estimator()

    def estimator(self) -> EstimatorConfig:
        shared = {name: getattr(self, name) for name in ("hidden", "lr", "weight_decay", "passes")}
        return EstimatorConfig(**shared, dropout=self.estimator_dropout, epochs=self.estimator_epochs)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """The surest rows, or all with soft labels; all T probabilities of every pair are in the audit."""
    ids, margin, passes = _of_model(frame, config) if config.model else _cross_fitted(frame, config)
    result = select_certain(ids, passes, margin=margin, config=part_of(config, UpoConfig), seed=config.seed)
    return weighed(frame, result, action=config.action)


Judged = tuple[tuple[str, ...], NDArray[np.float64], Uncertainty]


def _cross_fitted(frame: pl.DataFrame, config: Config) -> Judged:
    """Ids, margins and passes by heads and estimators on frozen features that have not seen the pair's family."""
    pairs = feature_pairs(frame, config)
    margin = cross_fitted(frame, pairs, part_of(config, HeadConfig), folds=config.folds, seed=config.seed)
    estimator = config.estimator()
    passes = cross_fitted_uncertainty(
        pairs, family_of(frame, pairs), config=estimator, folds=config.folds, seed=config.seed
    )
    return pairs.ids, margin, passes


def _of_model(frame: pl.DataFrame, config: Config) -> Judged:
    """The same by one reward model, whole, with dropout. Raises UsageError for a model that cannot drop."""
    from rmkit.models import load_model
    from rmkit.models.wrappers.dropout import ModelDropout, with_dropout

    pairs = judged_pairs(frame, config.splits)
    check_enough(len(pairs), what="pairs with a winner")
    requests = [pair.candidates for pair in pairs]
    model = load_model(config.model)
    plain = by_label(pairs, model.score(requests))
    rate, passes = config.estimator_dropout, config.passes
    dropping = with_dropout(model, rate=rate, passes=passes, where="model", seed=config.seed)
    assert isinstance(dropping, ModelDropout)
    draws = [by_label(pairs, one) for one in dropping.draws(requests)]
    margin = np.array([chosen.value - rejected.value for chosen, rejected in plain])
    return tuple(pair.example for pair in pairs), margin, from_scores(draws)
