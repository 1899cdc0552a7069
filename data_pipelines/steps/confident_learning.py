"""Confident learning as a filter: labels that cleanlab finds wrong from out-of-fold probabilities are dropped.

Probabilities come from cross-fitted reward heads, five folds by prompt family. cleanlab is optional
(rmkit.reliability.confident_learning); without it the step says how to get it.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from data_pipelines.algorithms.weighing import (
    CrossFitConfig,
    cross_fitted,
    feature_pairs,
    first_preferred,
    part_of,
    weighed,
)
from data_pipelines.steps import Context, StepResult
from rmkit.heads.stacked_training import HeadConfig


@dataclass(frozen=True, kw_only=True)
class Config(CrossFitConfig):
    """Every key is a shared one."""


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows whose label cleanlab does not doubt. Raises MissingExtraError without cleanlab."""
    from rmkit.reliability.confident_learning import confident_filter

    pairs = feature_pairs(frame, config)
    margin = cross_fitted(frame, pairs, part_of(config, HeadConfig), folds=config.folds, seed=config.seed)
    result = confident_filter(pairs.ids, margin, first_preferred=first_preferred(frame, pairs))
    return weighed(frame, result, action=config.action)
