"""Contributions of steps that add up to the outcome: (sum over the steps of c_t - R)^2.

SPA-RL (stepwise progress attribution). The sum alone is taught; how it is divided among the steps follows from what the
steps have in common between trajectories. A trajectory of one step has c = R.
"""

from __future__ import annotations

from torch import Tensor


def sum_to_outcome(contribution_BS: Tensor, *, outcome_B: Tensor) -> Tensor:
    """[B] loss >= 0; places without a step hold 0."""
    return (contribution_BS.sum(-1) - outcome_B) ** 2
