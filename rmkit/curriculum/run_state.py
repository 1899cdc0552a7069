"""What the prompt book knows of the run as a whole: bandit arms by category, quantile trackers, entropy history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rmkit.curriculum.bandits import Arm
from rmkit.curriculum.observation import Observation
from rmkit.curriculum.record import BookSettings, mean_advantage
from rmkit.curriculum.trackers import Mean, Quantile


@dataclass(slots=True)
class RunState:
    """`upto` is the ledger's event up to which everything is in it."""

    lower: Quantile
    upper: Quantile
    entropy: Mean = field(default_factory=Mean)
    arms: dict[str, Arm] = field(default_factory=dict)
    upto: int = 0

    @classmethod
    def new(cls, settings: BookSettings) -> Self:
        return cls(Quantile(settings.lower_level), Quantile(settings.upper_level))

    def fold(self, observations: Sequence[Observation], settings: BookSettings) -> None:
        """Take in one call's observations, which count as one batch. A category is the one that the call names."""
        by_category: dict[str, list[Observation]] = {}
        for one in observations:
            if one.scored and not one.tier and one.stage == "direct":
                by_category.setdefault(one.category or "", []).append(one)
        for category, members in by_category.items():
            n = sum(len(one.scored) for one in members)
            mean = sum(mean_advantage(one) * len(one.scored) for one in members) / n
            arm = self.arms.get(category, Arm())
            self.arms[category] = arm.observed(mean, n, rate=settings.bandit_rate, size=settings.bandit_window)
        if settings.decay_unseen and by_category:
            for category in set(self.arms) - set(by_category):
                self.arms[category] = self.arms[category].decayed(rate=settings.bandit_rate)
        scores = [one.score for one in observations if one.score is not None]
        self.lower = self.lower.observed(scores, rate=settings.quantile_rate)
        self.upper = self.upper.observed(scores, rate=settings.quantile_rate)
        self.entropy = self.entropy.observed([one.entropy for one in observations if one.entropy is not None])

    def as_json(self) -> dict[str, Any]:
        """Plain data that `of` reads."""
        arms = {name: [arm.value, [list(one) for one in arm.window], arm.n] for name, arm in self.arms.items()}
        trackers = {"lower": list(self.lower), "upper": list(self.upper), "entropy": list(self.entropy)}
        return {"upto": self.upto, "arms": arms, **trackers}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """The state behind `as_json`."""
        arms = {name: Arm(q, tuple((a, n) for a, n in window), n) for name, (q, window, n) in value["arms"].items()}
        return cls(Quantile(*value["lower"]), Quantile(*value["upper"]), Mean(*value["entropy"]), arms, value["upto"])
