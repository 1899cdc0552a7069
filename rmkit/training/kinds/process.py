"""Process models in training: one output a token, read at the ends of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rmkit.chat.encode import Chat
from rmkit.models.transformer import process
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training import model
from rmkit.training.config import ProcessConfig
from rmkit.training.rows import (
    TrainingRow,
)

CHECKPOINT = model.Checkpoint(process.CLASSIFIER, n_labels=1, peft_task="TOKEN_CLS")


def build(config: ProcessConfig, *, head: RatingHead | None = None) -> tuple[RewardModule, Chat]:
    return model.build(config, CHECKPOINT)


def prepare(
    rows: dict[str, Sequence[TrainingRow]], config: ProcessConfig, *modules: Any
) -> dict[str, Sequence[TrainingRow]]:
    return rows


def added_losses(outputs: Tensor, rows: Sequence[TrainingRow], config: ProcessConfig, module: Any) -> Tensor | None:
    return None


def storable(module: RewardModule, config: ProcessConfig, *, head: RatingHead | None = None) -> RewardModule:
    return model.storable(module, config, CHECKPOINT)


def save(
    folder: Path,
    module: RewardModule,
    chat: Chat,
    config: ProcessConfig,
    *,
    facts: Mapping[str, Any],
    head: RatingHead | None = None,
) -> None:
    steps: dict[str, Any] = {"reduction": config.reduction, "step_separator": config.step_separator}
    process.save(folder, model=model.in_stored_dtype(model.plain(module), config), chat=chat, facts=facts, **steps)
