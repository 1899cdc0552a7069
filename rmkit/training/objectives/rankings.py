"""Objectives over whole rankings: Plackett-Luce (`rmkit.losses.plackett_luce`) and PRO (`rmkit.losses.pro`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PreferenceObjective

if TYPE_CHECKING:
    from torch import Tensor

    from rmkit.chat.encode import Chat
    from rmkit.data.example import Example
    from rmkit.training.rows import (
        TrainingRow,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingObjective(PreferenceObjective):
    """A loss of rows with at least two ranked responses. Axis N: responses of the longest row."""

    trains: ClassVar[tuple[str, ...]] = ("explicit", "implicit")

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import compared_row

        return compared_row(example, chat, ties=True, ranked=True)

    def ranking_losses(self, score_BN: Tensor, rank_BN: Tensor) -> Tensor:
        """[B] losses; ranks 0 is best, -1 unranked or no response."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        import torch

        from rmkit.training.data import table

        score_BN, _ = table(outputs, rows)
        width = score_BN.shape[1]
        ranks = [[*row.ranks, *[-1] * (width - len(row.ranks))] for row in rows]
        return self.ranking_losses(score_BN, torch.tensor(ranks, device=score_BN.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlackettLuce(RankingObjective):
    def ranking_losses(self, score_BN: Tensor, rank_BN: Tensor) -> Tensor:
        from rmkit.losses.plackett_luce import plackett_luce

        return plackett_luce(score_BN, rank_BN=rank_BN)


@dataclass(frozen=True, slots=True, kw_only=True)
class PRO(RankingObjective):
    def ranking_losses(self, score_BN: Tensor, rank_BN: Tensor) -> Tensor:
        from rmkit.losses.pro import pro

        return pro(score_BN, reward_BN=-rank_BN.to(score_BN.dtype), present_BN=rank_BN >= 0)
