"""Uncertainty of one model by Monte Carlo dropout (Gal & Ghahramani 2016).

    head    r_t(h) = (m_t * w) . h / (1 - rate) + b,   m_t ~ Bernoulli(1 - rate) per input,   t = 1 .. T

A dropped input of a linear head is a zero in its weights, so T passes over the head are one product with T + 1 rows:
the plain head and T thinned ones. The trunk runs once. The same T heads serve every item, so scores stay pointwise and
do not depend on batches.
`value` is the plain score (exactly the mean over all masks), so fingerprint and calibration hold; `std` is over the T.

    model   T complete passes with dropout of `rate` in every layer that can drop; value and std of the T scores

The second costs T times as much and its draws depend on what is batched together, hence another fingerprint and
pointwise = False. Defaults: T = 10, rate 0.1, as peer systems use them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from rmkit.errors import ConfigError, UsageError
from rmkit.ids import digest
from rmkit.models.scoring import spread_score
from rmkit.models.small.frozen import FrozenModel
from rmkit.models.transformer.explicit import ExplicitRewardModel
from rmkit.models.wrappers.calibrated import CalibratedModel
from rmkit.types import Candidates, Comparison, ModelInfo, RewardModel, Score, compare_by_score

Where = Literal["head", "model"]

RATES = ("attention_dropout", "dropout", "hidden_dropout")  # where layers keep a rate as a number


def with_dropout(
    model: RewardModel, *, rate: float = 0.1, passes: int = 10, where: Where = "head", seed: int = 0
) -> RewardModel:
    """The model with a std in its scores. Takes the model over: its head is replaced (`head`) or thinned out (`model`).

    Raises ConfigError for a rate outside (0, 1) or fewer than two passes, UsageError for a model without such a head.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"the dropout rate must lie between 0 and 1, got {rate}")
    if passes < 2:
        raise ConfigError(f"a spread takes two passes or more, got {passes}")
    inner = model.model if isinstance(model, CalibratedModel) else model
    if where == "model":
        if not isinstance(inner, ExplicitRewardModel) or inner.head is not None:
            raise UsageError(f"{model.info.name} has no network of its own to drop from; use dropout in the head")
        return ModelDropout(inner, rate=rate, passes=passes, seed=seed)
    if isinstance(inner, FrozenModel):
        inner.replace_output(lambda out: thinned(out, rate=rate, passes=passes, seed=seed))
    elif isinstance(inner, ExplicitRewardModel) and inner.head is None:
        linear = head_of(inner.module.classifier)
        set_rows(linear, thinned(linear.weight[0], rate=rate, passes=passes, seed=seed), linear.bias)
        inner.head = cast(Any, Spread())  # read as the ratings of several aspects are
    else:
        raise UsageError(f"{model.info.name} ({model.info.kind}) has no head of one output to thin out")
    return model


def thinned(weight: Tensor, *, rate: float, passes: int, seed: int = 0) -> Tensor:
    """[1 + passes, inputs]: the weights [inputs] as they are, then thinned by `passes` random masks."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(passes, len(weight), generator=generator) >= rate
    mask = torch.cat([torch.ones(1, len(weight)), drawn / (1 - rate)])
    return weight.detach() * mask.to(weight)


def head_of(classifier: Any) -> nn.Linear:
    """The last layer of a sequence classifier, which gives the reward. Raises UsageError where it is no linear one."""
    heads = [child for _, child in classifier.named_children() if child is not classifier.base_model]
    linear = [part for head in heads for part in head.modules() if isinstance(part, nn.Linear)]
    if not linear or linear[-1].out_features != 1:
        raise UsageError(f"{type(classifier).__name__} has no linear head with one output")
    return linear[-1]


def set_rows(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear layer other rows in place; a bias of one is shared by all of them."""
    linear.weight = nn.Parameter(weight.to(linear.weight), requires_grad=False)
    linear.out_features = len(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().expand(len(weight)).clone(), requires_grad=False)


class Spread:
    """Reads the outputs of a head with 1 + T rows."""

    def score(self, outputs: Sequence[float]) -> Score:
        """The first output with the standard deviation of the others."""
        return spread_score(outputs)


class ModelDropout:
    """T passes of a whole explicit model with dropout switched on."""

    def __init__(self, model: ExplicitRewardModel, *, rate: float, passes: int, seed: int = 0) -> None:
        self.model, self.passes, self.seed = model, passes, seed
        self.dropping = set_rates(model.module.classifier, rate)
        if not self.dropping:
            raise UsageError(f"{model.info.name} has no layer that can drop; use dropout in the head")
        parts = [model.info.fingerprint, "model dropout", str(rate), str(passes), str(seed)]
        self.info: ModelInfo = replace(model.info, pointwise=False, fingerprint=digest(parts)[:32])

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] mean and std over the passes. The same call gives the same numbers."""
        draws = self.draws(batch)
        return [[_mean(passes) for passes in zip(*rows, strict=True)] for rows in zip(*draws, strict=True)]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] sigmoid of the difference of the means."""
        return compare_by_score(self.score, batch)

    def draws(self, batch: Sequence[Candidates]) -> list[list[list[Score]]]:
        """[T][P][N] the scores of every single pass, which `rmkit.reliability.uncertainty` reads as margins."""
        module = self.model.module
        module.train()
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                return [self.model.score(batch) for _ in range(self.passes)]
        finally:
            module.eval()


def _mean(passes: Sequence[Score]) -> Score:
    if failed := next((one for one in passes if one.unscored), None):
        return failed
    values = [one.value for one in passes]
    return replace(passes[0], value=statistics.fmean(values), std=statistics.stdev(values))


def set_rates(classifier: nn.Module, rate: float) -> int:
    """Set every dropout rate; how many there are."""
    result = 0
    for part in classifier.modules():
        if isinstance(part, nn.Dropout):
            part.p, result = rate, result + 1
        for name in RATES:
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, rate)
                result += 1
    return result
