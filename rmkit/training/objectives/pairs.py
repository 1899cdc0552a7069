"""Objectives over preferences: pairs of responses, each with the probability that its first is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.objectives.objective import Objective, RunState

if TYPE_CHECKING:
    from torch import Tensor

    from rmkit.chat.encode import Chat
    from rmkit.data.example import Example
    from rmkit.training.rows import (
        Outputs,
        TrainingRow,
        Validation,
    )


class Pairs(NamedTuple):
    """[Q] each, for the Q preferences of a micro-batch: rewards of both responses, the probability that the first is
    better, and the labeled margin of the row (0 where there is none)."""

    first: Tensor
    second: Tensor
    p: Tensor
    margin: Tensor

    @property
    def chosen(self) -> Tensor:
        return self.first.where(self.p > 0.5, self.second)

    @property
    def rejected(self) -> Tensor:
        return self.second.where(self.p > 0.5, self.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceObjective(Objective):
    """Learns from comparisons, and is judged by preferences. `keeps_ties`: rows whose label is a tie teach it."""

    level_is_free: ClassVar[bool] = True
    keeps_ties: ClassVar[bool] = False

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import compared_row

        return compared_row(example, chat, ties=self.keeps_ties)

    def validation_row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import compared_row

        return compared_row(example, chat, ties=True)

    def validate(self, outputs: Outputs, rows: Sequence[TrainingRow], state: RunState) -> Validation:
        from rmkit.training.validation import preferences

        return preferences(outputs, rows, value=lambda output: float(output[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairObjective(PreferenceObjective):
    """A loss of single pairs; a row's loss is their sum, weighted by their shares."""

    def pair_losses(self, pairs: Pairs, state: RunState) -> Tensor:
        """[Q] loss of each pair."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        import torch

        starts, start = [], 0
        for row in rows:
            starts.append(start)
            start += len(row.ids)
        flat = [(number, row, one) for number, row in enumerate(rows) for one in row.preferences]
        pairs = Pairs(
            outputs[[starts[number] + one.i for number, _, one in flat]],
            outputs[[starts[number] + one.j for number, _, one in flat]],
            outputs.new_tensor([one.p for _, _, one in flat]),
            outputs.new_tensor([row.margin for _, row, _ in flat]),
        )
        share_Q = outputs.new_tensor([one.share for _, _, one in flat])
        owner_Q = torch.tensor([number for number, _, _ in flat], device=outputs.device)
        return outputs.new_zeros(len(rows)).index_add(0, owner_Q, self.pair_losses(pairs, state) * share_Q)
