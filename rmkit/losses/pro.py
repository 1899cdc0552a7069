"""PRO: every response against all worse ones, each comparison tempered by the gap of their rewards.

    sum_{k < n} [ log( exp(s_k T_k) + sum_{j > k} exp(s_j T_kj) ) - s_k T_k ]
    T_kj = r_k - r_j,  T_k = max_j T_kj,  responses sorted by r, best first

Song et al., Preference ranking optimization, arXiv:2306.17492, eq. 8. For explicit rewards s is the score; the paper's
likelihood term on the best response belongs to policies (`likelihood` of rmkit train implicit). n = 2 is Bradley-Terry
scaled by the gap; tied rewards give a constant and no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pro(score_BN: Tensor, *, reward_BN: Tensor, present_BN: Tensor | None = None) -> Tensor:
    """[B] loss per group. `reward_BN` are the target rewards (any scale: only gaps count)."""
    present_BN = torch.ones_like(score_BN, dtype=torch.bool) if present_BN is None else present_BN
    gap_BNN = reward_BN[:, :, None] - reward_BN[:, None, :]
    index_N = torch.arange(score_BN.shape[1], device=score_BN.device)
    behind_BNN = (gap_BNN > 0) | ((gap_BNN == 0) & (index_N[None, :, None] < index_N[None, None, :]))
    behind_BNN = behind_BNN & present_BN[:, None, :] & present_BN[:, :, None]
    top_BN = gap_BNN.masked_fill(~behind_BNN, 0.0).amax(-1)
    own_BN = score_BN * top_BN
    floor = torch.finfo(score_BN.dtype).min
    worse_BNN = (score_BN[:, None, :] * gap_BNN).masked_fill(~behind_BNN, floor)
    all_BNN = torch.cat([own_BN[:, :, None], worse_BNN], dim=-1)
    return (torch.logsumexp(all_BNN, dim=-1) - own_BN).masked_fill(~behind_BNN.any(-1), 0.0).sum(-1)
