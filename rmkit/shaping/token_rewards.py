"""Token rewards and the adaptive teacher of AlignDistil (B21, arXiv:2503.02832), from two models with one tokenizer.

    r_t = beta (log p_dpo(token) - log p_reverse(token))
    teacher logits = l_dpo + w (l_dpo - l_reverse), w = kappa sum_v |p_dpo - p_reverse| + 1e-3 at each position

The reverse model is trained on the pairs with chosen and rejected swapped. The sum of r_t over a completion is its
sequence-level implicit reward, so the same signal serves whoever takes one number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import DataError
from rmkit.shaping.group import Floats

OFF_POLICY_KAPPA, ON_POLICY_KAPPA = 10.0, 15.0


class Teacher(NamedTuple):
    """`logits` [T, V] and the extrapolation `weight` [T]; the paper's loss is divided by the weight, times beta."""

    logits: Floats
    weight: Floats


def implicit_token_rewards(logp: ArrayLike, reference_logp: ArrayLike, *, beta: float = 0.1) -> Floats:
    """[T] rewards of the tokens of one completion; NaN where one of the two log-probabilities is."""
    one, other = np.asarray(logp, np.float64), np.asarray(reference_logp, np.float64)
    if one.shape != other.shape:
        raise DataError(f"log-probabilities of {one.shape} and {other.shape} tokens; one tokenizer must serve both")
    return beta * (one - other)


def adaptive_teacher(dpo_logits: ArrayLike, reverse_logits: ArrayLike, *, kappa: float = OFF_POLICY_KAPPA) -> Teacher:
    """The teacher of each of T positions over V tokens. Models that agree make the DPO model itself the teacher."""
    dpo, reverse = np.asarray(dpo_logits, np.float64), np.asarray(reverse_logits, np.float64)
    if dpo.shape != reverse.shape or dpo.ndim != 2:
        raise DataError(f"expected two arrays [T, V] of one shape, got {dpo.shape} and {reverse.shape}")
    weight = kappa * np.abs(_softmax(dpo) - _softmax(reverse)).sum(1) + 1e-3
    return Teacher(dpo + weight[:, None] * (dpo - reverse), weight)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float64)
