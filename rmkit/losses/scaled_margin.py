"""Bradley-Terry with a factor on the margin: softplus(-a (chosen - rejected)).

TRPA takes token means of log-ratios times beta as rewards and a = 2.5 where the chosen response is right, 1 elsewhere
(`rmkit.shaping.pairs.level_pairs`). The factor sharpens the slope near 0 and saturates sooner; it is no weight.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def scaled_margin(chosen_B: Tensor, rejected_B: Tensor, *, factor_B: Tensor) -> Tensor:
    """[B] loss >= 0 per pair; at factor 1 it is Bradley-Terry."""
    return softplus(-factor_B * (chosen_B - rejected_B))
