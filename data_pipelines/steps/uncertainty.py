"""UPO's estimator as a filter: of the labels it agrees with, those it is surest of are kept.

`estimator` says who judges every pair in both orders, T passes with dropout each:

    features        heads on frozen features: trained on K - 1 folds of prompt families they judge the remaining one,
                    and margins come from cross-fitted reward heads; with `gold`, a version of labeled pairs, trained
                    on that, and margins are the pairs' own
    language_model  the causal language model of folder `model` with a two-class head, trained on `gold`
                    (rmkit.models.transformer.pair_estimator); margins are the pairs' own
    reward_model    the fine-tuned reward model `model`, which must not have been trained on these labels; its margin is
                    the same in both orders
    none            nobody: all pairs agree and are equally sure (the ablation); margins are the pairs' own

`selector`: lowest BALD, highest mean probability, largest margin, drawn by (1 - BALD)^mu as printed, or at random.
`action` soft_label trains on 1 - alpha instead of dropping (rmkit.reliability.upo); `soften` does so to what is kept.
`largest_margin`, `hard` and `one_per_prompt` are UPO's mix of the next round. Mean probability and margin did as well
as BALD in our measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
from rmkit.errors import ConfigError, DataError
from rmkit.heads.pair_estimator import EstimatorConfig, PairEstimator, cross_fitted_uncertainty
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.label_weights import check_enough
from rmkit.reliability.uncertainty import Uncertainty, from_scores
from rmkit.reliability.upo import MixConfig, UpoConfig, mix, select_certain
from rmkit.types import Candidates


@dataclass(frozen=True, kw_only=True)
class Config(CrossFitConfig, UpoConfig):
    """`hidden`, `lr`, `batch_pairs` and `epochs` are the reward heads'; the estimator takes the first two as well."""

    estimator: Literal["features", "language_model", "reward_model", "none"] = "features"
    model: str = ""
    gold: str = ""
    passes: int = 10
    estimator_dropout: float = 0.1
    estimator_epochs: int = 5
    estimator_lr: float = 2e-5
    estimator_tokens: int = 2048
    soften: bool = False
    largest_margin: float = 0.0
    hard: float = 0.0
    one_per_prompt: bool = False

    def __post_init__(self) -> None:
        for kind in (CrossFitConfig, UpoConfig):
            part_of(self, kind)
        MixConfig(largest_margin=self.largest_margin, hard=self.hard)
        self.head_estimator()
        if bool(self.model) != (self.estimator in ("language_model", "reward_model")):
            raise ConfigError("uncertainty: name model = FOLDER for estimator language_model or reward_model alone")
        if self.estimator == "language_model" and not self.gold:
            raise ConfigError("uncertainty: the language model is trained on labeled pairs: gold = NAME@REF")

    def head_estimator(self) -> EstimatorConfig:
        shared = {name: getattr(self, name) for name in ("hidden", "lr", "weight_decay", "passes")}
        return EstimatorConfig(**shared, dropout=self.estimator_dropout, epochs=self.estimator_epochs)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """The surest rows, or all with soft labels; all T probabilities of every pair are in the audit."""
    ids, margin, passes = _JUDGES[config.estimator](frame, config, context)
    result = select_certain(ids, passes, margin=margin, config=part_of(config, UpoConfig), seed=config.seed)
    if config.one_per_prompt:
        prompt = dict(frame.select("id", "prompt").iter_rows())
        shares = MixConfig(largest_margin=config.largest_margin, hard=config.hard)
        result = mix(result, prompts=[prompt[one] for one in ids], config=shares, seed=config.seed)
    weighted = weighed(frame, result, action=config.action)
    if not config.soften:
        return weighted
    softened = weighed(frame, result, action="soft_label").kept
    return weighted._replace(kept=softened.filter(pl.col("id").is_in(weighted.kept["id"].implode())))


Judged = tuple[tuple[str, ...], NDArray[np.float64], Uncertainty]


def _by_features(frame: pl.DataFrame, config: Config, context: Context) -> Judged:
    """Ids, margins and passes by estimators on frozen features that have not seen the pair's family."""
    pairs = feature_pairs(frame, config)
    estimator = config.head_estimator()
    if config.gold:
        labeled = feature_pairs(context.gold[config.gold], config)
        fitted = PairEstimator(labeled.width, estimator, seed=config.seed).fit(labeled)
        return pairs.ids, _own_margin(frame, pairs.ids), fitted.uncertainty(pairs)
    margin = cross_fitted(frame, pairs, part_of(config, HeadConfig), folds=config.folds, seed=config.seed)
    passes = cross_fitted_uncertainty(
        pairs, family_of(frame, pairs), config=estimator, folds=config.folds, seed=config.seed
    )
    return pairs.ids, margin, passes


def _by_reward_model(frame: pl.DataFrame, config: Config, context: Context) -> Judged:
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


def _by_language_model(frame: pl.DataFrame, config: Config, context: Context) -> Judged:
    """The same by a language model with a pair head, trained on the labeled pairs."""
    from rmkit.models.transformer.pair_estimator import LanguageModelConfig, LanguageModelEstimator

    pairs = _ordered(frame, config.splits)
    settings = LanguageModelConfig(
        model=config.model,
        passes=config.passes,
        dropout=config.estimator_dropout,
        epochs=config.estimator_epochs,
        lr=config.estimator_lr,
        max_length=config.estimator_tokens,
    )
    labeled = list(_ordered(context.gold[config.gold], config.splits).values())
    fitted = LanguageModelEstimator(settings, seed=config.seed).fit(labeled)
    return tuple(pairs), _own_margin(frame, tuple(pairs)), fitted.uncertainty(list(pairs.values()))


def _by_nobody(frame: pl.DataFrame, config: Config, context: Context) -> Judged:
    ids = tuple(_ordered(frame, config.splits))
    return ids, _own_margin(frame, ids), Uncertainty(np.ones((2, len(ids))))


_JUDGES: dict[str, Callable[[pl.DataFrame, Config, Context], Judged]] = {
    "features": _by_features,
    "language_model": _by_language_model,
    "reward_model": _by_reward_model,
    "none": _by_nobody,
}


def _ordered(frame: pl.DataFrame, splits: tuple[str, ...]) -> dict[str, Candidates]:
    """The pairs to judge by id, each with the response that the label prefers first."""
    pairs = judged_pairs(frame, splits)
    if not pairs:
        raise DataError(f"no pair with a winner in the splits {', '.join(splits)}, or in none")
    return {
        pair.example: pair.candidates if pair.p > 0.5 else pair.candidates.of(*pair.candidates.completions[::-1])
        for pair in pairs
    }


def _own_margin(frame: pl.DataFrame, ids: tuple[str, ...]) -> NDArray[np.float64]:
    known = dict(frame.select("id", "margin").iter_rows())
    return np.array([np.nan if known[one] is None else known[one] for one in ids])
