"""MPO's split by reward gap: easy pairs (for DPO), hard ones (for RL), and suspected mislabels apart.

The gap is that of a reward model that has been trained elsewhere (`model`: an artifact folder) or, without one, of
cross-fitted heads (rmkit.reliability.mpo). `part` says which rows go on: easy, hard, or suspect, the last for people to
look at. Rows of the other parts are dropped with the reason; all of it is in the audit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.weighing import (
    CrossFitConfig,
    by_label,
    cross_fitted,
    feature_pairs,
    judged_pairs,
    part_of,
    weighed,
)
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.label_weights import LabelWeights

Part = Literal["easy", "hard", "suspect"]


@dataclass(frozen=True, kw_only=True)
class Config(CrossFitConfig):
    part: Part = "easy"
    quantile: float = 0.5
    model: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.quantile < 1:
            raise ConfigError(f"reward_gap: expected a quantile in [0, 1), got {self.quantile}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows of the wanted part. Raises DataError below 50 scored pairs."""
    from rmkit.reliability.mpo import split_by_gap

    ids, margin = model_margins(frame, config) if config.model else _cross_fitted(frame, config)
    results = split_by_gap(ids, margin, quantile=config.quantile)
    target = np.asarray(results.evidence["part"]) == config.part
    why = np.where(target, "", np.asarray(results.reason, dtype=object))
    why[~target & (why == "")] = "easy: the rewards are far apart, as the label says"
    result: LabelWeights = replace(results, weight=target.astype(np.float64), reason=tuple(why.tolist()))
    return weighed(frame, result, action=config.action)


def model_margins(frame: pl.DataFrame, config: Config) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Ids and margins of the labeled order by the reward model in a folder; NaN where it could not score."""
    from rmkit.models import load_model

    pairs = judged_pairs(frame, config.splits)
    scores = by_label(pairs, load_model(config.model).score([pair.candidates for pair in pairs]))
    return tuple(pair.example for pair in pairs), np.array(
        [chosen.value - rejected.value for chosen, rejected in scores]
    )


def _cross_fitted(frame: pl.DataFrame, config: Config) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    pairs = feature_pairs(frame, config)
    return pairs.ids, cross_fitted(frame, pairs, part_of(config, HeadConfig), folds=config.folds, seed=config.seed)
