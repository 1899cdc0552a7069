"""Collaborative reward modeling as a filter: two small models select training pairs for each other.

Both models are trained on frozen features (rmkit.reliability.crm); a pair that neither learned from in the last epoch
has weight 0, one that only one learned from 1/2. `noise` is the share of wrong labels to expect; left out, it is
estimated by cross-fitting, an upper estimate, or, with `gold`, counted on the pairs whose right label a version of your
own knows (NAME@REF, at least 20 of them); either is told with its interval. `selector` self or mean are the plain
alternatives, and did as well in our measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from data_pipelines.algorithms.weighing import (
    WeighingConfig,
    agreement_with,
    estimated_noise,
    feature_pairs,
    noise_facts,
    part_of,
    weighed,
)
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability import noise_prior
from rmkit.reliability.peer_review import ReviewConfig


@dataclass(frozen=True, kw_only=True)
class Config(HeadConfig, ReviewConfig, WeighingConfig):
    noise: float | None = None
    gold: str = ""

    def __post_init__(self) -> None:
        for kind in (HeadConfig, ReviewConfig, WeighingConfig):
            part_of(self, kind)
        if self.noise is not None:
            noise_prior.stated(self.noise)
            if self.gold:
                raise ConfigError("peer_review: give noise or gold, not both")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the weight that the two models give them. Raises DataError below 50 pairs."""
    from rmkit.reliability.crm import collaborate

    pairs = feature_pairs(frame, config)
    head = part_of(config, HeadConfig)
    if config.noise is not None:
        prior = noise_prior.stated(config.noise)
    elif config.gold:
        prior = noise_prior.from_gold(agreement_with(context.gold[config.gold], frame, pairs.ids))
    else:
        prior = estimated_noise(frame, pairs, head, seed=config.seed)
    result = collaborate(pairs, noise=prior.value, review=part_of(config, ReviewConfig), head=head, seed=config.seed)
    return weighed(frame, result.verdicts, action=config.action, audit=result.audit.table(), facts=noise_facts(prior))
