"""Binary reactions (thumbs, hearts) under a sampled prior.

Where all positives but only a share k of the negatives were kept, the sampled odds are the true odds / k. The score is
the true logit; the loss therefore compares score - log k with the label:

    BCE(score - log k, y)

King and Zeng, Logistic regression in rare events data, 2001, sec. 4.2 (prior correction). RLUF trains on the sample and
adds log k afterwards; doing it inside the loss gives the same optimum and a score that needs no further correction.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rmkit.errors import ConfigError


def reaction(score_B: Tensor, *, liked_B: Tensor, negatives_kept: float = 1.0) -> Tensor:
    """[B] loss >= 0. `liked_B` is 1 or 0. Raises ConfigError unless 0 < negatives_kept <= 1."""
    if not 0 < negatives_kept <= 1:
        raise ConfigError(f"negatives_kept is the share of negatives in the sample, in (0, 1]; got {negatives_kept}")
    return binary_cross_entropy_with_logits(score_B - math.log(negatives_kept), liked_B, reduction="none")
