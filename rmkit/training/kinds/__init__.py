"""How models of each kind are built, fed and stored in training: one module a kind, with the functions of `Kind`.

explicit    a scalar head, or one output an aspect, read at the end of each response
process     one output a token, read at the end of each step
implicit    a policy, whose log-ratio to a reference is read
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from torch import Tensor

    from rmkit.chat.encode import Chat
    from rmkit.models.transformer.rating_head import RatingHead
    from rmkit.training.config import TrainingConfig
    from rmkit.training.rows import (
        TrainingRow,
    )


class Kind(Protocol):
    def build(self, config: Any, *, head: RatingHead | None = None) -> tuple[Any, Chat]:
        """The module in fp32 on the CPU (quantized: on the GPU) and its chat. `head` names the aspects of ratings.

        Raises ModelError where a checkpoint or its tokenizer cannot be used, ConfigError where texts may be longer than
        its positions or weights cannot be quantized here, MissingExtraError for an absent package.
        """

    def prepare(
        self, rows: dict[str, Sequence[TrainingRow]], config: Any, *modules: Any
    ) -> dict[str, Sequence[TrainingRow]]:
        """The rows of all splits as they are to be learned; the modules get what they must know of them."""

    def added_losses(self, outputs: Tensor, rows: Sequence[TrainingRow], config: Any, module: Any) -> Tensor | None:
        """[B] what this kind of model adds to the objective's losses, None for nothing."""

    def storable(self, module: Any, config: Any, *, head: RatingHead | None = None) -> Any:
        """The module as it will be stored: of a quantized trunk the original weights with the adapters merged in."""

    def save(
        self,
        folder: Path,
        module: Any,
        chat: Chat,
        config: Any,
        *,
        facts: Mapping[str, Any],
        head: RatingHead | None = None,
    ) -> None:
        """Write the artifact into an existing empty folder."""


def kind_of(config: TrainingConfig) -> Kind:
    """The kind of model that the config trains."""
    return cast(Kind, importlib.import_module(f"rmkit.training.kinds.{config.kind}"))
