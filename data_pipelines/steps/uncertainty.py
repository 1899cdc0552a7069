"""UPO's estimator as a filter: of the labels it agrees with, those it is surest of are kept.

Estimators with dropout (rmkit.reliability.pair_estimator) are trained on K - 1 folds of prompt families and judge the
remaining one in both orders, T passes each; margins come from cross-fitted reward heads. `selector`: lowest BALD,
highest mean probability, largest margin, or drawn by (1 - BALD)^mu as printed. `action` soft_label trains on 1 - alpha
instead (rmkit.reliability.upo). Mean probability and margin did as well as BALD in our measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from data_pipelines.steps import Context, StepResult
from data_pipelines.steps.weighing import WeighingConfig, family_of, feature_pairs, part_of, weighed
from rmkit.errors import ConfigError
from rmkit.reliability.cross_fit import cross_fitted_margins
from rmkit.reliability.head_training import HeadConfig
from rmkit.reliability.pair_estimator import EstimatorConfig, cross_fitted_uncertainty
from rmkit.reliability.upo import UpoConfig, select_certain


@dataclass(frozen=True, kw_only=True)
class Config(HeadConfig, UpoConfig, WeighingConfig):
    """`hidden`, `lr`, `batch_pairs` and `epochs` are the reward heads'; the estimator takes the first two as well."""

    folds: int = 5
    passes: int = 10
    estimator_dropout: float = 0.1
    estimator_epochs: int = 5

    def __post_init__(self) -> None:
        for kind in (HeadConfig, UpoConfig, WeighingConfig):
            part_of(self, kind)
        self.estimator()
        if self.folds < 2:
            raise ConfigError(f"uncertainty: folds must be at least 2, got {self.folds}")

    def estimator(self) -> EstimatorConfig:
        shared = {name: getattr(self, name) for name in ("hidden", "lr", "weight_decay", "passes")}
        return EstimatorConfig(**shared, dropout=self.estimator_dropout, epochs=self.estimator_epochs)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """The surest rows, or all with soft labels; all T probabilities of every pair are in the audit."""
    pairs = feature_pairs(frame, config)
    head, family = part_of(config, HeadConfig), family_of(frame, pairs)
    margin = cross_fitted_margins(pairs, head=head, folds=config.folds, groups=family, seed=config.seed)
    estimator = config.estimator()
    passes = cross_fitted_uncertainty(pairs, family, config=estimator, folds=config.folds, seed=config.seed)
    found = select_certain(pairs.ids, passes, margin=margin, config=part_of(config, UpoConfig), seed=config.seed)
    return weighed(frame, found, action=config.action)
