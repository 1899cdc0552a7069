"""The stream: captions come from rollouts, a slow labeler takes the newest, a fast learner gives the rewards.

    offer(captions)            from the policy's workers; a caption waits once, however often it is seen
    batch = take()             for the labeler, the newest first, at most `batch`
    learn(batch, labels)       one more version of the learner
    reward(captions)           values, the version that gave them, how many labels are out and how old they are

The labeler may be far behind: `backlog` counts captions that wait, `lag` those offered since the newest labeled one.
Every reward carries its version, so that what is replayed can be scored again. A reward may be divided by how often its
caption was seen (`rmkit.curriculum.trackers.count_bonus`); what is mixed with the task's own reward is a chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rmkit.curriculum.trackers import count_bonus
from rmkit.errors import DataError

Floats = NDArray[np.float64]


class Learner(Protocol):
    """What learns rewards of captions; `predict` [n] never fails, an unlearned learner gives zeros."""

    def learn(self, captions: Sequence[str], labels: Sequence[float]) -> None: ...

    def predict(self, captions: Sequence[str]) -> Floats: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """`values` [n]; `version` counts the updates before them."""

    values: Floats
    version: int
    backlog: int
    lag: int


@dataclass(slots=True, kw_only=True)
class LabelStream:
    """`exponent` of the count by which rewards are divided; 0 leaves them."""

    learner: Learner
    batch: int = 500
    exponent: float = 0.0
    version: int = 0
    _waiting: dict[str, int] = field(default_factory=dict)  # caption -> when it was last seen
    _labeled: set[str] = field(default_factory=set)
    _seen: Counter[str] = field(default_factory=Counter)
    _offered: int = 0
    _newest_labeled: int = 0

    def offer(self, captions: Sequence[str]) -> None:
        """Captions of new rollouts, in their order; those with a label do not wait again."""
        for caption in captions:
            self._offered += 1
            self._seen[caption] += 1
            if caption not in self._labeled:
                self._waiting[caption] = self._offered

    def take(self) -> list[str]:
        """The newest captions without a label; they go on waiting until their labels come."""
        return sorted(self._waiting, key=lambda one: -self._waiting[one])[: self.batch]

    def learn(self, captions: Sequence[str], labels: Sequence[float | None]) -> int:
        """The version after these labels; a caption without one (None) goes on waiting."""
        if len(captions) != len(labels):
            raise DataError(f"expected a label for each of {len(captions)} captions, got {len(labels)}")
        known = [(caption, label) for caption, label in zip(captions, labels, strict=True) if label is not None]
        if known:
            self.learner.learn([caption for caption, _ in known], [label for _, label in known])
            self.version += 1
        for caption, _ in known:
            self._newest_labeled = max(self._newest_labeled, self._waiting.pop(caption, 0))
            self._labeled.add(caption)
        return self.version

    def reward(self, captions: Sequence[str]) -> Rewards:
        values = np.asarray(self.learner.predict(captions), np.float64)
        factor = [count_bonus(self._seen[caption], exponent=self.exponent) for caption in captions]
        return Rewards(
            values=values * np.array(factor),
            version=self.version,
            backlog=len(self._waiting),
            lag=self._offered - self._newest_labeled,
        )
