"""UPO's estimator on frozen features: a classifier of ordered pairs with Monte Carlo dropout.

    g(x, a, b) = out . drop(relu(W [p, a, b, p * a, p * b] + c)) + d       logit that a is better than b
    p_t = ( sigmoid(g_t(x, chosen, rejected)) + 1 - sigmoid(g_t(x, rejected, chosen)) ) / 2

Every pair enters in both orders, with labels 1 and 0, in training and in estimation. Each pass is one network: its
dropout mask is drawn once and serves all pairs, so the hidden layer is computed once, T passes are one product with T
thinned output rows, and a pair's estimate does not depend on what else is in the batch. T = 10, dropout 0.1, as in the
paper's code; there the classifier is the language model itself.

Sun et al., arXiv:2409.11212.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rmkit.errors import ConfigError
from rmkit.heads.loop import DescentConfig, descend
from rmkit.reliability.cross_fit import fold_of
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.reliability.label_weights import Floats, check_enough
from rmkit.reliability.uncertainty import Uncertainty


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig(DescentConfig):
    """The classifier of ordered pairs, how it is trained and asked."""

    hidden: Annotated[int, "hidden units"] = 256
    lr: Annotated[float, "learning rate"] = 3e-4
    batch_pairs: Annotated[int, "pairs of one step, each in both orders"] = 128
    epochs: Annotated[int, "passes over the pairs"] = 5
    dropout: Annotated[float, "share of hidden units dropped in training and in each pass of the estimation"] = 0.1
    passes: Annotated[int, "passes T of the estimation"] = 10

    def __post_init__(self) -> None:
        DescentConfig.__post_init__(self)
        self.check_positive("hidden", "lr", "batch_pairs")
        if not 0 < self.dropout < 1:
            raise ConfigError(f"dropout: expected (0, 1), got {self.dropout}; without it all passes are the same")
        if self.passes < 2:
            raise ConfigError(f"passes must be at least 2, got {self.passes}")


class PairEstimator:
    """A trained classifier of ordered pairs; `uncertainty` asks it T times."""

    def __init__(self, width: int, config: EstimatorConfig, *, seed: int = 0) -> None:
        self.config, self.seed, self.scale = config, seed, width**0.5
        generator = torch.Generator().manual_seed(seed)
        self.weights = {
            "hidden": torch.randn(5 * width, config.hidden, generator=generator) / (5 * width) ** 0.5,
            "hidden_bias": torch.zeros(config.hidden),
            "out": torch.randn(config.hidden, generator=generator) / config.hidden**0.5,
            "out_bias": torch.zeros(()),
        }

    def fit(self, pairs: FeaturePairs) -> PairEstimator:
        """Train on the labeled pairs in both orders. Raises DataError below 50 pairs with finite features."""
        usable = pairs.take(pairs.finite)
        check_enough(len(usable), what="labeled pairs")
        parameters = [weight.requires_grad_() for weight in self.weights.values()]
        optimizer = torch.optim.AdamW(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay)
        masks = torch.Generator().manual_seed(self.seed + 1)

        def losses() -> Iterator[Tensor]:
            for epoch in range(self.config.epochs):
                order = np.random.default_rng([self.seed, epoch]).permutation(len(usable))
                for index in np.array_split(order, max(1, len(order) // self.config.batch_pairs)):
                    yield self._loss(usable.take(index), masks)

        descend(optimizer, losses())
        self.weights = {name: weight.detach() for name, weight in self.weights.items()}
        return self

    def uncertainty(self, pairs: FeaturePairs) -> Uncertainty:
        """T passes over the pairs in both orders; NaN where features are not finite."""
        return Uncertainty(self._ask(pairs, self._thinned()))

    def probability(self, pairs: FeaturePairs) -> Floats:
        """[n] probability that the order is right without dropout: one pass."""
        values: Floats = self._ask(pairs, self.weights["out"][:, None])[0]
        return values

    def _ask(self, pairs: FeaturePairs, out_HT: Tensor) -> Floats:
        """[T, n] with one row per output column; NaN where features are not finite."""
        usable = pairs.finite
        p = np.full((out_HT.shape[1], len(pairs)), np.nan)
        with torch.no_grad():
            done = [self._passes(part, out_HT) for part in _parts(pairs.take(usable))]
        if done:
            p[:, usable] = np.concatenate(done, axis=1)
        return p

    def _loss(self, batch: FeaturePairs, masks: torch.Generator) -> Tensor:
        hidden = self._hidden(batch)  # [2, B, H]
        mask = torch.rand(hidden.shape, generator=masks) >= self.config.dropout
        logit = (hidden * mask / (1 - self.config.dropout)) @ self.weights["out"] + self.weights["out_bias"]
        right = torch.ones(len(batch)) if batch.soft_label is None else torch.from_numpy(batch.soft_label).float()
        loss: Tensor = binary_cross_entropy_with_logits(logit, torch.stack([right, 1 - right]))
        return loss

    def _passes(self, part: FeaturePairs, out_HT: Tensor) -> Floats:
        """[T, B] probabilities that the order is right."""
        right, reversed_ = (self._hidden(part) @ out_HT + self.weights["out_bias"]).sigmoid()  # each [B, T]
        values: Floats = ((right + 1 - reversed_) / 2).T.double().numpy()
        return values

    def _thinned(self) -> Tensor:
        """[H, T] output weights of the T networks."""
        generator = torch.Generator().manual_seed(self.seed + 2)
        mask = torch.rand(self.config.hidden, self.config.passes, generator=generator) >= self.config.dropout
        thinned: Tensor = self.weights["out"][:, None] * mask / (1 - self.config.dropout)
        return thinned

    def _hidden(self, batch: FeaturePairs) -> Tensor:
        """[2, B, H] hidden units of (chosen, rejected) and (rejected, chosen)."""
        prompt, chosen, rejected = (
            torch.from_numpy(batch.vectors[batch.rows[:, part]]).float() * self.scale for part in range(3)
        )
        inputs = torch.stack([_inputs(prompt, chosen, rejected), _inputs(prompt, rejected, chosen)])
        hidden: Tensor = torch.relu(inputs @ self.weights["hidden"] + self.weights["hidden_bias"])
        return hidden


def cross_fitted_uncertainty(
    pairs: FeaturePairs,
    groups: Sequence[object],
    *,
    config: EstimatorConfig | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Uncertainty:
    """Every pair judged by an estimator that has not seen its group."""
    config = config or EstimatorConfig()
    fold_n = fold_of(groups, folds=folds, seed=seed)
    passes = np.full((config.passes, len(pairs)), np.nan)
    for fold in range(folds):
        judged = fold_n == fold
        fitted = PairEstimator(pairs.width, config, seed=seed * folds + fold).fit(pairs.take(~judged))
        passes[:, judged] = fitted.uncertainty(pairs.take(judged)).passes
    return Uncertainty(passes)


def _inputs(prompt: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([prompt, a, b, prompt * a, prompt * b], dim=1)


def _parts(pairs: FeaturePairs) -> list[FeaturePairs]:
    return [pairs.take(np.arange(at, min(at + 2048, len(pairs)))) for at in range(0, len(pairs), 2048)]
