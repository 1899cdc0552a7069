"""Values of the states of a trajectory, consistent with its outcome.

    mean over t of (V(s_t) - (R - beta sum over i > t of log pi / pi_ref (a_i)))^2

s_t is the state behind step t, R the outcome; at the end the target is R. OREO, Wang et al., arXiv:2412.16145. Where
the policy is the reference, V(s) is the mean outcome of what went through s.
"""

from __future__ import annotations

import torch
from torch import Tensor


def trajectory_targets(outcome_B: Tensor, log_ratio_BS: Tensor, *, beta: float) -> Tensor:
    """[B, S] targets of the states behind each step; places without a step hold 0 in `log_ratio_BS`."""
    behind_BS = log_ratio_BS.flip(-1).cumsum(-1).flip(-1) - log_ratio_BS
    return outcome_B[:, None] - beta * behind_BS


def step_regression(value_BS: Tensor, *, target_BS: Tensor) -> Tensor:
    """[B] mean squared error over the steps that have a target (NaN: none); 0 where none has."""
    known_BS = ~target_BS.isnan()
    error_BS = value_BS - torch.where(known_BS, target_BS, value_BS.detach())
    return (error_BS**2).sum(-1) / known_BS.sum(-1).clamp(min=1)
