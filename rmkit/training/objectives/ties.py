"""Davidson's model of wins and ties, whose tie parameter is learned with the rewards (`rmkit.losses.ties`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.objectives.objective import RunState
from rmkit.training.objectives.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties(PairObjective):
    keeps_ties: ClassVar[bool] = True

    def learned(self, head: RatingHead | None) -> nn.ParameterDict:
        import torch

        return torch.nn.ParameterDict({"log_nu": torch.zeros(())})

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        import torch

        from rmkit.losses.ties import davidson

        assert state.learned is not None
        p_Q = pairs.p
        tied_Q = 1 - (2 * p_Q - 1).abs()  # a share p of wins and no word on ties: the undecided part counts as tied
        outcome_Q3 = torch.stack([(2 * p_Q - 1).clamp(min=0), tied_Q, (1 - 2 * p_Q).clamp(min=0)], dim=-1)
        return davidson(pairs.first, pairs.second, outcome_B3=outcome_Q3, log_nu=state.learned["log_nu"])

    def metadata(self, state: RunState) -> dict[str, object]:
        assert state.learned is not None
        return {"log_nu": state.learned["log_nu"].item()}
