"""Training K stacked heads: every head walks its own pool of pairs in its own order, all of them step together.

    loss of a head's batch = sum_i w_i [ s_i l(m_i) + (1 - s_i) l(-m_i) ] / sum_i w_i

s is the soft label of the pair (1: the order is sure), w its weight, l one of Bradley-Terry, label smoothing (cDPO) or
the unbiased robust loss (rDPO); the last is unbounded below, so its gradient is clipped per head at norm 1. AdamW.

A pool is cut into equally long batches, as many for every head, so no head takes a step on a handful of pairs. Orders
depend on (seed, epoch) alone, so a run can stop after any epoch and go on bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmkit.errors import ConfigError
from rmkit.heads.loop import DescentConfig, descend
from rmkit.heads.stacked import StackedHeads, Table, initial, margins
from rmkit.losses.bradley_terry import bradley_terry
from rmkit.losses.label_smoothing import label_smoothing
from rmkit.losses.robust import robust
from rmkit.reliability.feature_pairs import FeaturePairs

Index = NDArray[np.int64]
LossName = Literal["bradley_terry", "label_smoothing", "robust"]
Keep = Callable[[Tensor, Tensor, Tensor], Tensor]

ROBUST_CLIP = 1.0


@dataclass(frozen=True, kw_only=True)
class HeadConfig(DescentConfig):
    """The reward heads that judge labels, and how they are trained."""

    hidden: Annotated[int, "hidden units"] = 256
    lr: Annotated[float, "learning rate of AdamW"] = 3e-4
    batch_pairs: Annotated[int, "pairs of one step"] = 128
    dropout: Annotated[float, "share of hidden units dropped in training, in [0, 1)"] = 0.0
    loss: Annotated[LossName, "what the heads learn by"] = "bradley_terry"
    loss_noise: Annotated[float, "flip rate that label_smoothing and robust assume, in [0, 0.5)"] = 0.1

    def __post_init__(self) -> None:
        DescentConfig.__post_init__(self)
        self.check_positive("hidden", "lr", "batch_pairs")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected [0, 1), got {self.dropout}")
        if not 0 <= self.loss_noise < 0.5:
            raise ConfigError(f"loss_noise: expected a flip rate in [0, 0.5), got {self.loss_noise}")


class Trainer:
    """K heads with their optimizer on one table of pairs; `epoch` trains each on its own pool once.

    `seeds` [K] decide each head's initial weights, orders and dropout.
    """

    def __init__(self, pairs: FeaturePairs, config: HeadConfig, *, seeds: Sequence[int]) -> None:
        self.config, self.seeds = config, tuple(seeds)
        self.table = Table(pairs)
        self.heads = initial(seeds, width=pairs.width, hidden=config.hidden)
        self.optimizer = torch.optim.AdamW(
            list(self.heads.tensors.values()), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self._soft = None if pairs.soft_label is None else torch.from_numpy(pairs.soft_label).float()
        self._weight = None if pairs.weight is None else torch.from_numpy(pairs.weight).float()

    def order(self, epoch: int, pools: Sequence[Index]) -> list[Index]:
        """Each head's pool in its random order of this epoch."""
        return [
            np.random.default_rng([seed, epoch]).permutation(pool) for seed, pool in zip(self.seeds, pools, strict=True)
        ]

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Weights and moments as arrays, keyed for `restore`."""
        names = {f"heads.{name}": tensor.detach().numpy() for name, tensor in self.heads.tensors.items()}
        for name, tensor in self.heads.tensors.items():
            names |= {f"{key}.{name}": value.numpy() for key, value in self.optimizer.state[tensor].items()}
        return names

    def restore(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Take up a `state`, so that the next epoch is bit for bit the one that would have followed."""
        for name, tensor in self.heads.tensors.items():
            tensor.data.copy_(torch.from_numpy(state[f"heads.{name}"]))
            self.optimizer.state[tensor] = {
                key: torch.from_numpy(state[f"{key}.{name}"]).clone() for key in ("step", "exp_avg", "exp_avg_sq")
            }

    def epoch(self, number: int, ordered: Sequence[Index], *, keep: Keep | None = None) -> None:
        """One pass over the ordered pools [K][...]. `keep(index_KB, prompt, responses)` -> [K, B] selects."""
        masks = [torch.Generator().manual_seed(seed * 100_003 + number) for seed in self.seeds]
        parts = batches(ordered, self.config.batch_pairs)
        losses = (self._loss(torch.from_numpy(index_KB), masks, keep) for index_KB in parts)
        clip = partial(clip_each, list(self.heads.tensors.values()), ROBUST_CLIP)
        descend(self.optimizer, losses, clip=clip if self.config.loss == "robust" else None)

    def _loss(self, index_KB: Tensor, masks: Sequence[torch.Generator], keep: Keep | None) -> Tensor:
        rows_KB = index_KB.clamp(min=0)
        prompt, responses = self.table.gather(rows_KB)
        weight_KB = (index_KB >= 0).float()
        if keep is not None:
            weight_KB = weight_KB * keep(index_KB, prompt, responses)
        if self._weight is not None:
            weight_KB = weight_KB * self._weight[rows_KB]
        margin_KB = margins(self.heads, prompt, responses, keep_hidden=self._dropout(rows_KB.shape[1], masks))
        loss_KB = self._losses(margin_KB, rows_KB)
        loss: Tensor = ((weight_KB * loss_KB).sum(dim=1) / weight_KB.sum(dim=1).clamp(min=1e-12)).sum()
        return loss

    def _losses(self, margin_KB: Tensor, rows_KB: Tensor) -> Tensor:
        loss_KB = pair_loss(margin_KB, self.config)
        if self._soft is None:
            return loss_KB
        soft_KB = self._soft[rows_KB]
        return soft_KB * loss_KB + (1 - soft_KB) * pair_loss(-margin_KB, self.config)

    def _dropout(self, b: int, masks: Sequence[torch.Generator]) -> Tensor | None:
        p = self.config.dropout
        if not p:
            return None
        drawn = torch.stack([torch.rand(2 * b, self.config.hidden, generator=mask) for mask in masks])
        return (drawn >= p).float() / (1 - p)


def pair_loss(margin: Tensor, config: HeadConfig) -> Tensor:
    """The configured loss of margins, elementwise."""
    zero = torch.zeros(())
    match config.loss:
        case "bradley_terry":
            return bradley_terry(margin, zero)
        case "label_smoothing":
            return label_smoothing(margin, zero, noise=config.loss_noise)
        case "robust":
            return robust(margin, zero, noise=config.loss_noise)
    raise ConfigError(f"loss: expected bradley_terry, label_smoothing or robust, got {config.loss!r}")


def batches(ordered: Sequence[Index], batch_pairs: int) -> Iterator[Index]:
    """[K, B] indices per step, -1 where a head's batch is shorter; every head takes as many steps as the longest."""
    steps = max(1, math.ceil(max(len(pool) for pool in ordered) / batch_pairs))
    parts = [np.array_split(pool, steps) for pool in ordered]
    width = max(len(part[0]) for part in parts)
    for step in range(steps):
        index = np.full((len(ordered), width), -1, dtype=np.int64)
        for head, part in enumerate(parts):
            index[head, : len(part[step])] = part[step]
        yield index


def clip_each(parameters: Sequence[Tensor], limit: float) -> None:
    """Scale each head's gradient (leading axis) to a norm of at most `limit`."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    square = torch.stack([grad.flatten(1).square().sum(dim=1) for grad in grads]).sum(dim=0)
    factor = (limit / square.sqrt().clamp(min=1e-12)).clamp(max=1)
    for grad in grads:
        grad.mul_(factor.view(-1, *[1] * (grad.dim() - 1)))


def fit_heads(
    pairs: FeaturePairs,
    config: HeadConfig,
    *,
    seeds: Sequence[int],
    pools: Sequence[Index] | None = None,
    after_epoch: Callable[[int, StackedHeads], None] | None = None,
) -> StackedHeads:
    """K heads trained side by side, one per seed, each on its own pool [K] of pair indices (default: all pairs)."""
    trainer = Trainer(pairs, config, seeds=seeds)
    target = [np.arange(len(pairs))] * len(seeds) if pools is None else list(pools)
    for epoch in range(config.epochs):
        trainer.epoch(epoch, trainer.order(epoch, target))
        if after_epoch is not None:
            after_epoch(epoch, trainer.heads)
    return trainer.heads.only(range(len(seeds)))
