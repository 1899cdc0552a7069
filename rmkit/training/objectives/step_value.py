"""Values at the end of each step, of any range: squared errors (`rmkit.losses.trajectory_value`).

`step_value` reads step labels, whatever made them: visit Q of a search (AlphaMath, arXiv:2405.03553), distances, prover
scores. `oreo` reads the outcome of a trajectory and the log-ratios of its steps. Both go with the reduction `value`:
the value of a solution is that of its last state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.objectives.objective import Objective, RunState, StepOutputs

if TYPE_CHECKING:
    from torch import Tensor

    from rmkit.chat.encode import Chat
    from rmkit.data.example import Example
    from rmkit.training.rows import Outputs, TrainingRow, Validation


@dataclass(frozen=True, slots=True, kw_only=True)
class StepValue(Objective):
    trains: ClassVar[tuple[str, ...]] = ("process",)
    selects_by: ClassVar[str] = "loss"
    steps: ClassVar[StepOutputs] = "values"

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import stepped_row

        return stepped_row(example, chat, any_range=True)

    def targets(self, row: TrainingRow) -> tuple[float, ...]:
        """[S] of a row's one response, NaN where there is none."""
        return row.step_labels[0]

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        """[B] from [R] values of all steps."""
        import torch

        from rmkit.losses.trajectory_value import step_regression

        targets = [outputs.new_tensor(self.targets(row)) for row in rows]
        pad = torch.nn.utils.rnn.pad_sequence
        values = torch.split_with_sizes(outputs, [len(own) for own in targets])
        target_BS = pad(targets, batch_first=True, padding_value=math.nan)
        return step_regression(pad(list(values), batch_first=True), target_BS=target_BS)

    def validate(self, outputs: Outputs, rows: Sequence[TrainingRow], state: RunState) -> Validation:
        """The mean squared error over steps, that of always saying the mean, and the correlation with the targets."""
        import numpy as np

        from rmkit.training.rows import Validation

        value = np.concatenate([np.asarray(output[0], dtype=np.float64) for output in outputs])
        target = np.concatenate([np.array(self.targets(row)) for row in rows])
        value, target = value[~np.isnan(target)], target[~np.isnan(target)]
        varied = len(target) > 1 and value.std() > 0 and target.std() > 0
        facts = {
            "loss": float(np.mean((value - target) ** 2)),
            "loss_of_the_mean": float(target.var()),
            "correlation": float(np.corrcoef(value, target)[0, 1]) if varied else None,
            "solutions": len(rows),
            "steps": len(target),
        }
        return Validation(np.empty(0), np.empty(0), facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class OREO(StepValue):
    """Rows of one response in steps with a rating of the whole, and one log pi / pi_ref a step."""

    outcome: Annotated[str, "the rating (aspect) that is the outcome"] = "correct"
    log_ratio: Annotated[str, "ratings log_ratio_1, log_ratio_2 ... are log pi / pi_ref of the steps"] = "log_ratio_"
    on_policy: Annotated[bool, "the policy was the reference: rows without log-ratios have ratios of 0"] = False
    beta: Annotated[float, "weight of the log-ratios"] = 0.01

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import outcome_row

        return outcome_row(
            example, chat, aspect=self.outcome, step_aspects=self.log_ratio, missing=0.0 if self.on_policy else None
        )

    def targets(self, row: TrainingRow) -> tuple[float, ...]:
        outcome, *ratios = row.ratings[0]
        behind = [self.beta * math.fsum(ratios[at + 1 :]) for at in range(len(ratios))]
        return tuple(outcome - own for own in behind)
