"""Centering: the mean reward of a group is pulled to zero, which comparisons alone leave free.

    (sum of the group's scores)^2, for a pair (chosen + rejected)^2

Eisenstein et al., Helping or herding?, arXiv:2312.09244, sec. 2. Added to another loss with a small weight (0.01).
"""

from __future__ import annotations

from torch import Tensor


def centering(score_BN: Tensor, *, present_BN: Tensor | None = None) -> Tensor:
    """[B] penalty >= 0. Responses that are not present count nothing."""
    kept_BN = score_BN if present_BN is None else score_BN.where(present_BN, score_BN.new_zeros(()))
    return kept_BN.sum(-1) ** 2
