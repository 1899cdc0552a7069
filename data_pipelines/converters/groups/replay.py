"""What to replay of a task: one success that the policy finds neither surprising nor easy (WebRL, arXiv:2411.02337).

    success     the outcome model's probability of yes >= `threshold`
    band        p^(1/tokens) = exp(mean log-probability) in (low, high]

Of the successes in the band the least probable is taken. A false success poisons the replay, while a false failure only
wastes data: choose the threshold by precision (`rmkit.metrics.thresholds`). Mixed with fresh rollouts 2 : 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError, ratings
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "the rating that is the outcome: a verifier's, or the probability of yes"] = "correct"
    threshold: Annotated[float, "an outcome of at least this is a success"] = 0.5
    logp: Annotated[str, "the rating that is the policy's mean log-probability per token"] = "mean_logp"
    low: Annotated[float, "the band's lower end, excluded"] = 0.5
    high: Annotated[float, "the band's upper end"] = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(f"replay: 0 <= low < high <= 1, got {self.low} and {self.high}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """The one unit of kind single to replay, with its outcome."""
    outcome = ratings(example, config.aspect)
    wins = [at for at, value in enumerate(outcome) if value >= config.threshold]
    if not wins:
        raise NotConvertibleError("no success")
    p = [math.exp(one) for one in ratings(example, config.logp)]
    band = [at for at in wins if config.low < p[at] <= config.high]
    if not band:
        raise NotConvertibleError("no success within the band of probabilities")
    at = min(band, key=lambda one: (p[one], one))
    ends = example["step_ends"]
    yield Derived(
        responses=[example["responses"][at]],
        origins=[at],
        step_ends=None if ends is None else [ends[at]],
        scores=[(0, config.aspect, outcome[at]), (0, "token_probability", p[at])],
        n_votes=0,
    )
