"""Contributions of steps to the outcome of a trajectory (`rmkit.losses.sum_to_outcome`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.objectives.objective import Objective, RunState, StepOutputs

if TYPE_CHECKING:
    from torch import Tensor

    from rmkit.chat.encode import Chat
    from rmkit.data.example import Example
    from rmkit.training.rows import (
        Outputs,
        TrainingRow,
        Validation,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SumToOutcome(Objective):
    """Rows of one response in steps with a rating of the whole. Goes with the reduction `sum`."""

    trains: ClassVar[tuple[str, ...]] = ("process",)
    selects_by: ClassVar[str] = "loss"
    steps: ClassVar[StepOutputs] = "contributions"

    outcome: Annotated[str, "the rating (aspect) that is the outcome; one without a name by default"] = ""

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import outcome_row

        return outcome_row(example, chat, aspect=self.outcome)

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        import torch

        from rmkit.losses.sum_to_outcome import sum_to_outcome

        parts = torch.split_with_sizes(outputs, [len(row.step_index[0]) for row in rows])
        contribution_BS = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
        return sum_to_outcome(contribution_BS, outcome_B=outputs.new_tensor([row.ratings[0][0] for row in rows]))

    def validate(self, outputs: Outputs, rows: Sequence[TrainingRow], state: RunState) -> Validation:
        """The mean squared error, that of always saying the mean outcome, and the correlation with the outcome."""
        import numpy as np

        from rmkit.training.rows import Validation

        sums = np.array([float(np.sum(output[0])) for output in outputs])
        outcomes = np.array([row.ratings[0][0] for row in rows])
        varied = len(rows) > 1 and sums.std() > 0 and outcomes.std() > 0
        facts = {
            "loss": float(np.mean((sums - outcomes) ** 2)),
            "loss_of_the_mean": float(outcomes.var()),
            "correlation": float(np.corrcoef(sums, outcomes)[0, 1]) if varied else None,
            "responses": len(rows),
        }
        return Validation(np.empty(0), np.empty(0), facts)
