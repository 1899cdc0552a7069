"""The one training loop of small networks: one optimizer step per loss, epoch by epoch, the best validated one kept.

Who trains yields the losses of an epoch, batch by batch. They are drawn one at a time, so that each is computed with
the weights that the step before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

from rmkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

State = TypeVar("State")


@dataclass(frozen=True, kw_only=True)
class DescentConfig:
    """What every small training is set by; subclasses add the sizes of their network and batch, and their defaults."""

    weight_decay: Annotated[float, "of AdamW"] = 0.01
    epochs: Annotated[int, "passes over the training data at most"] = 10

    def __post_init__(self) -> None:
        self.check_positive("epochs")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay must not be negative, got {self.weight_decay}")

    def check_positive(self, *names: str) -> None:
        """Raises ConfigError where one of the fields is not above 0."""
        for name in names:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Best(Generic[State]):
    """The epoch (from 1) with the lowest validation loss, and the state it left."""

    epoch: int
    loss: float
    state: State


def descend(
    optimizer: torch.optim.Optimizer, losses: Iterable[Tensor], *, clip: Callable[[], object] | None = None
) -> list[float]:
    """One step per loss, `clip` between gradient and step; the losses. Raises DataError for one that is not finite."""
    import torch

    values = []
    for loss in losses:
        if not bool(loss.isfinite()):
            raise DataError("the training loss is not finite; lower the learning rate")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if clip is not None:
            clip()
        optimizer.step()
        values.append(loss.item())
    return values


def best_epoch(
    epoch: Callable[[int], object], validate: Callable[[], tuple[float, State]], *, epochs: int, patience: int
) -> Best[State]:
    """Run `epoch` (from 0) until `patience` epochs brought no lower validation loss. `validate` gives that loss and the
    state to keep with it, a copy."""
    best: Best[State] | None = None
    for number in range(epochs):
        epoch(number)
        loss, state = validate()
        if best is None or loss < best.loss:
            best = Best(number + 1, loss, state)
        elif number + 1 - best.epoch >= patience:
            break
    if best is None:
        raise ConfigError(f"epochs must be positive, got {epochs}")
    return best
