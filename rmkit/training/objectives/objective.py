"""What every objective answers: which rows it learns from, its loss, and what its numbers are worth on validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from rmkit.models.transformer.rating_head import RatingHead
from rmkit.plugins import BUILT_IN

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rmkit.chat.encode import Chat
    from rmkit.data.example import Example
    from rmkit.training.rows import (
        Outputs,
        TrainingRow,
        Validation,
    )


# Logits of being right; parts that add up to the outcome; values of the states behind them.
StepOutputs = Literal["logits", "contributions", "values"]
REDUCTION_OF: dict[StepOutputs, str] = {"contributions": "sum", "values": "value"}  # the only one that they go with


class Learned(Protocol):
    """Numbers that an objective learns beside the model, by name."""

    def __getitem__(self, name: str, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class RunState:
    """What one run knows besides its rows: what the outputs mean where ratings are learned, the numbers learned beside
    the model, and the factor between log-ratios and implicit rewards (1 for other rewards)."""

    head: RatingHead | None = None
    learned: Learned | None = None
    reward_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The fields of a subclass are its options: TOML, `--set` and Python name them beside those of the run.

    Axes: K responses of all rows of a micro-batch, B rows, A aspects.
    """

    trains: ClassVar[tuple[str, ...]] = ("explicit",)  # kinds of models: explicit, process, implicit
    selects_by: ClassVar[str] = "log_loss"  # the fact of `validate` by which a checkpoint is chosen; lower is better
    level_is_free: ClassVar[bool] = False  # only differences of rewards count, so that they may be centered
    divides: ClassVar[bool] = False  # implicit rewards are means over tokens, not sums
    steps: ClassVar[StepOutputs] = "logits"  # what outputs of steps are
    reviewable: ClassVar[bool] = False  # models that it trains may select pairs for each other (train peers)

    @classmethod
    def name(cls) -> str:
        """The name it is built in under, else "module:object"."""
        target = f"{cls.__module__}:{cls.__qualname__}"
        return next((name for name, built_in in BUILT_IN["objectives"].items() if built_in == target), target)

    def head(self, examples: Iterable[Example]) -> RatingHead | None:
        """What the outputs will mean, learned from the train split; None for one reward a response."""
        return None

    def learned(self, head: RatingHead | None) -> nn.ParameterDict | None:
        """Start values of the numbers to learn beside the model."""
        return None

    def row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        """The example as a training row, or the reason why it is none."""
        raise NotImplementedError

    def validation_row(self, example: Example, chat: Chat, *, head: RatingHead | None = None) -> TrainingRow | str:
        """As `row`, where an example can be judged that cannot be learned from."""
        return self.row(example, chat, head=head)

    def losses(self, outputs: Tensor, rows: Sequence[TrainingRow], state: RunState) -> Tensor:
        """[B] losses before weights from the outputs of the rows' responses in order: [K], [K, A] of several aspects,
        one a step where rows have steps."""
        raise NotImplementedError

    def validate(self, outputs: Outputs, rows: Sequence[TrainingRow], state: RunState) -> Validation:
        """What the outputs are worth on the validation rows."""
        raise NotImplementedError

    def trained_head(self, state: RunState) -> RatingHead | None:
        """What the artifact stores as the meaning of its outputs."""
        return state.head

    def metadata(self, state: RunState) -> dict[str, object]:
        """What the artifact tells of the numbers learned beside the model."""
        return {}
