"""Process rewards: a logit per step against hard or soft step labels.

    mean over the labeled steps of BCE(logit, label)

Lightman et al., Let's verify step by step, arXiv:2305.20050; soft labels Wang et al., Math-Shepherd, arXiv:2312.08935.
Labels end at the first error: later ones are NaN and carry neither loss nor gradient. A solution's reward is one of the
four reductions of its step probabilities that the literature uses; a caller keeps all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

Reduction = Literal["min", "last", "product", "mean"]


def process(logit_BS: Tensor, *, label_BS: Tensor) -> Tensor:
    """[B] mean loss over the labeled steps; 0 where none is. Labels in [0, 1], NaN where there is none."""
    labeled_BS = ~label_BS.isnan()
    target_BS = label_BS.where(labeled_BS, torch.zeros_like(label_BS))
    loss_BS = binary_cross_entropy_with_logits(logit_BS, target_BS, reduction="none")
    return loss_BS.masked_fill(~labeled_BS, 0.0).sum(-1) / labeled_BS.sum(-1).clamp(min=1)


def reduce_steps(logit_S: Tensor, *, how: Reduction) -> Tensor:
    """Scalar in (0, 1]: the reward of a solution from the logits of its S >= 1 steps."""
    match how:
        case "min":
            return torch.sigmoid(logit_S).min()
        case "last":
            return torch.sigmoid(logit_S[-1])
        case "product":
            return logsigmoid(logit_S).sum().exp()
        case "mean":
            return torch.sigmoid(logit_S).mean()
