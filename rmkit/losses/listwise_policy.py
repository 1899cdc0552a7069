"""The policy gradient of expected nDCG over Plackett-Luce rankings (PG-RANK).

Rankings are drawn by sorting scores plus Gumbel noise; the gradient is that of

    -mean over samples of (nDCG(ranking) - mean nDCG of the other samples) log P(ranking)

nDCG@k has gains 2^relevance - 1 and discounts 1 / log2(place + 1). The loss's value is a surrogate; what is
better is told by `expected_ndcg`. A list without a relevant item teaches nothing. The baseline and the number of
samples are inferred.
"""

from __future__ import annotations

import torch
from torch import Tensor


def listwise_policy(
    score_BN: Tensor, *, relevance_BN: Tensor, samples: int = 32, k: int = 10, generator: torch.Generator | None = None
) -> Tensor:
    """[B] surrogate losses whose gradient is an unbiased estimate of that of -E[nDCG@k]. Relevance NaN is no item."""
    utility_SB, log_p_SB = _sampled(score_BN, relevance_BN, samples, k, generator)
    others_SB = (utility_SB.sum(0) - utility_SB) / max(samples - 1, 1)
    return -((utility_SB - others_SB) * log_p_SB).mean(0)


def expected_ndcg(
    score_BN: Tensor, *, relevance_BN: Tensor, samples: int = 32, k: int = 10, generator: torch.Generator | None = None
) -> Tensor:
    """[B] mean nDCG@k of rankings drawn from the scores, 0 without a relevant item."""
    return _sampled(score_BN.detach(), relevance_BN, samples, k, generator)[0].mean(0)


def _sampled(
    score_BN: Tensor, relevance_BN: Tensor, samples: int, k: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """[S, B] nDCG of S rankings, and their log-probabilities."""
    there_BN = ~relevance_BN.isnan()
    floor = torch.finfo(score_BN.dtype).min / 4
    score_BN = score_BN.masked_fill(~there_BN, floor)
    uniform_SBN = torch.rand((samples, *score_BN.shape), generator=generator, dtype=torch.float64).to(score_BN.device)
    gumbel_SBN = -torch.log(-torch.log(uniform_SBN.clamp(1e-300, 1 - 1e-16)))
    noisy_SBN = (score_BN.detach() + gumbel_SBN).masked_fill(~there_BN, floor)
    order_SBN = noisy_SBN.argsort(-1, descending=True)
    drawn_SBN = score_BN.expand_as(order_SBN).gather(-1, order_SBN)
    item_SBN = there_BN.expand_as(order_SBN).gather(-1, order_SBN)
    # The log-sum-exp of what is left at each place, from the last to the first.
    left_SBN = drawn_SBN.flip(-1).logcumsumexp(-1).flip(-1)
    log_p_SB = (drawn_SBN - left_SBN).masked_fill(~item_SBN, 0.0).sum(-1)
    gain_BN = (2.0 ** relevance_BN.nan_to_num(0.0) - 1).masked_fill(~there_BN, 0.0)
    places = torch.arange(1, score_BN.shape[1] + 1, device=score_BN.device, dtype=score_BN.dtype)
    discount_N = (places <= k) / torch.log2(places + 1)
    ideal_B = (gain_BN.sort(-1, descending=True).values * discount_N).sum(-1)
    dcg_SB = (gain_BN.expand_as(order_SBN).gather(-1, order_SBN) * discount_N).sum(-1)
    return torch.where(ideal_B > 0, dcg_SB / ideal_B.clamp(min=1e-12), 0.0), log_p_SB
