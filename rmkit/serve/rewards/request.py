"""What a reward request holds and what it gets back, whatever route or dialect it came by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmkit.signal.signal import Signal
from rmkit.types import Candidates, RewardModel, Score, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """A prompt's completions and what a trainer says of them: `row` of its dataset, `columns` per completion (numbers,
    lists of numbers, labels), the group that they belong to and how many completions it has in all."""

    candidates: Candidates
    row: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    group_id: str | None = None
    group_size: int | None = None

    def __len__(self) -> int:
        return len(self.candidates.completions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRequest:
    """`signal` None gives the model's own numbers. `step` and `policy_version` are the trainer's."""

    items: Sequence[RewardItem]
    signal: Signal | None = None
    model: str | None = None
    by: RewardModel | None = None  # the model that was served when the texts were read
    step: int | None = None
    policy_version: str | None = None
    spans: bool = False


@dataclass(slots=True, kw_only=True)
class Reward:
    """One completion's; `unscored` says why `reward` is None. `places` are its parts where the chain gives a list."""

    score: Score
    raw: float | None = None
    reward: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    unscored: str | None = None
    places: list[float | None] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
