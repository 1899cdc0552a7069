"""Labels of the steps of a solution (`rmkit.losses.process`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Objective):
    trains: ClassVar[tuple[str, ...]] = ("process",)

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        from rmkit.training.data import stepped_row

        return stepped_row(example, chat)

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        """[B] mean over the labeled steps of every response, from [R] logits of all steps."""
        import torch

        from rmkit.losses.process import process
        from rmkit.training.data import mean_of_rows

        labels = [torch.tensor(steps, device=outputs.device) for row in rows for steps in row.step_labels]
        logits = torch.split_with_sizes(outputs, [len(steps) for steps in labels])
        pad = torch.nn.utils.rnn.pad_sequence
        label_KS = pad(labels, batch_first=True, padding_value=float("nan"))
        return mean_of_rows(process(pad(list(logits), batch_first=True), label_BS=label_KS), rows)

    def validate(self, outputs: Outputs, rows: Sequence[TrainingRow], state: RunState) -> Validation:
        import numpy as np

        from rmkit.training.rows import Validation
        from rmkit.training.validation import step_facts

        steps = [np.array(steps) for row in rows for steps in row.step_labels]
        families = [row.family for row in rows for _ in row.ids]
        facts = step_facts([output for row in outputs for output in row], steps, families)
        return Validation(np.empty(0), np.empty(0), facts)
