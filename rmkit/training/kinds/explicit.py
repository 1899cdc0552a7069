"""Explicit models in training: a scalar head, or one output an aspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rmkit.chat.encode import Chat
from rmkit.losses.centering import centering
from rmkit.models.transformer import explicit
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training import model
from rmkit.training.config import ExplicitConfig
from rmkit.training.data import (
    table,
)
from rmkit.training.rows import (
    TrainingRow,
)


def build(config: ExplicitConfig, *, head: RatingHead | None = None) -> tuple[RewardModule, Chat]:
    return model.build(config, _checkpoint(head))


def prepare(
    rows: dict[str, Sequence[TrainingRow]], config: ExplicitConfig, *modules: Any
) -> dict[str, Sequence[TrainingRow]]:
    return rows


def added_losses(outputs: Tensor, rows: Sequence[TrainingRow], config: ExplicitConfig, module: Any) -> Tensor | None:
    if not config.center_rewards_coefficient:
        return None
    score_BN, present_BN = table(outputs, rows)
    return config.center_rewards_coefficient * centering(score_BN, present_BN=present_BN)


def storable(module: RewardModule, config: ExplicitConfig, *, head: RatingHead | None = None) -> RewardModule:
    return model.storable(module, config, _checkpoint(head))


def save(
    folder: Path,
    module: RewardModule,
    chat: Chat,
    config: ExplicitConfig,
    *,
    facts: Mapping[str, Any],
    head: RatingHead | None = None,
) -> None:
    explicit.save(folder, model=model.in_stored_dtype(model.plain(module), config), chat=chat, facts=facts, head=head)


def _checkpoint(head: RatingHead | None) -> model.Checkpoint:
    return model.Checkpoint(explicit.CLASSIFIER, n_labels=len(head.aspects) if head else 1, peft_task="SEQ_CLS")
