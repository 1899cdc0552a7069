"""Rankings by the policy gradient of expected nDCG (`rmkit.losses.listwise_policy`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rmkit.errors import ConfigError
from rmkit.training.objectives.rankings import RankingObjective

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwisePolicy(RankingObjective):
    """Relevance falls by one with each rank: 0 for the last of the ranked responses."""

    samples: Annotated[int, "rankings drawn for each row"] = 32
    cutoff: Annotated[int, "places that nDCG counts"] = 10

    def __post_init__(self) -> None:
        if self.samples < 2 or self.cutoff < 1:
            raise ConfigError(f"samples must be at least 2 and cutoff 1, got {self.samples} and {self.cutoff}")

    def ranking_losses(self, score_BN: Tensor, rank_BN: Tensor) -> Tensor:
        from rmkit.losses.listwise_policy import listwise_policy

        last_B = rank_BN.max(-1, keepdim=True).values
        relevance_BN = (last_B - rank_BN).to(score_BN.dtype).masked_fill(rank_BN < 0, float("nan"))
        return listwise_policy(score_BN, relevance_BN=relevance_BN, samples=self.samples, k=self.cutoff)
