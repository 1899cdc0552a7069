"""A prompt's record: what its observations add up to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from rmkit.curriculum import replay
from rmkit.curriculum.bandits import RATE, WINDOW
from rmkit.curriculum.beta import Beta
from rmkit.curriculum.buckets import Bucket, bucket
from rmkit.curriculum.drift_average import DriftAverage
from rmkit.curriculum.flags import flags
from rmkit.curriculum.observation import LARGEST, Observation, is_finite
from rmkit.errors import ConfigError

RECENT = 32  # outcomes that a record holds for its flags


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSettings:
    """How a book counts. They are stored with the book: all workers must count alike."""

    decay: Annotated[float, "memory of the Beta beliefs, in (0, 1]; 1 forgets nothing"] = 1.0
    threshold: Annotated[
        float | None, "a reward that reaches it is a success; without it a reward in [0, 1] is a part"
    ] = None
    window: Annotated[int, "attempts that the flags look at"] = 8
    plateau_gain: Annotated[float, "gain in pass rate that ends a plateau"] = 0.0
    bandit_rate: Annotated[float, "SEC's step size"] = RATE
    bandit_window: Annotated[int, "DUMP's rollouts per category"] = WINDOW
    decay_unseen: Annotated[bool, "whether SEC's categories that were not sampled decay, as its code has it"] = False
    quantile_rate: Annotated[float, "step size of the quantile trackers"] = 0.1
    lower_level: Annotated[float, "level of the lower quantile tracker"] = 0.2
    upper_level: Annotated[float, "level of the upper quantile tracker"] = 0.8
    served: Annotated[
        str, "component of the reward log that counts as outcome: value, exact_match ...; none if not set"
    ] = ""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay must be in (0, 1], got {self.decay}")
        if not 1 <= self.window <= RECENT // 2:
            raise ConfigError(f"window must be in [1, {RECENT // 2}], got {self.window}")
        if not 0 < self.lower_level < self.upper_level < 1:
            raise ConfigError(f"expected 0 < lower_level < upper_level < 1, got {self.lower_level}, {self.upper_level}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRecord:
    """`n` answers in `groups` observations, all without a hint; `recent` are the last outcomes in [0, 1]."""

    category: str | None = None
    parent: str | None = None
    belief: Beta = field(default_factory=Beta)
    average: DriftAverage = field(default_factory=DriftAverage)
    n: int = 0
    groups: int = 0
    unscored: int = 0
    recent: tuple[float, ...] = ()
    advantage: float | None = None
    tier: int = 0
    stage: str = "direct"
    wins: tuple[replay.Win, ...] = ()

    @property
    def pass_rate(self) -> float:
        """The mean of the belief, one half for a prompt that nobody tried."""
        return self.belief.mean

    @property
    def bucket(self) -> Bucket | None:
        """CLPO's, None for a prompt that nobody tried."""
        return bucket(self.pass_rate) if self.n else None

    def flags(self, settings: BookSettings) -> tuple[str, ...]:
        return flags(self.recent, window=settings.window, gain=settings.plateau_gain)

    def observed(self, one: Observation, settings: BookSettings) -> PromptRecord:
        """The record after an observation."""
        scored = one.scored
        seen = replace(
            self,
            category=self.category or one.category,
            parent=self.parent or one.parent,
            unscored=self.unscored + len(one.rewards) - len(scored),
        )
        if not scored:
            return seen
        wins = [
            replay.Win(name, float(reward))
            for name, reward in zip(one.rollouts, one.rewards, strict=False)
            if is_finite(reward)
        ]
        seen = replace(seen, wins=replay.stored(self.wins, wins))
        if one.tier or one.stage != "direct":
            solved = any(reward > 0 for reward in scored)
            return replace(
                seen, tier=one.tier if solved and one.tier else seen.tier, stage=one.stage if solved else seen.stage
            )
        outcomes = [success(reward, settings) for reward in scored]
        average = self.average
        for place, outcome in enumerate(outcomes):
            average = average.observed(outcome, drift=(one.drift or 0.0) if place == 0 else 0.0)
        return replace(
            seen,
            belief=self.belief.observed(sum(outcomes), len(outcomes), decay=settings.decay),
            average=average,
            n=self.n + len(outcomes),
            groups=self.groups + 1,
            recent=(*self.recent, *outcomes)[-RECENT:],
            advantage=mean_advantage(one),
        )

    def as_json(self) -> dict[str, Any]:
        """What differs from a new record."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        new = PromptRecord()
        return {key: value for key, value in values.items() if value != getattr(new, key)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PromptRecord:
        """The record behind `as_json`."""
        arguments = dict(values)
        for key, kind in (("belief", Beta), ("average", DriftAverage)):
            if key in arguments:
                arguments[key] = kind(*arguments[key])
        if "recent" in arguments:
            arguments["recent"] = tuple(arguments["recent"])
        arguments["wins"] = tuple(replay.Win(*win) for win in arguments.get("wins", ()))
        return cls(**arguments)


def success(reward: float, settings: BookSettings) -> float:
    """How much of a success a reward is, in [0, 1]."""
    if settings.threshold is not None:
        return float(reward >= settings.threshold)
    return min(max(reward, 0.0), 1.0)


def mean_advantage(one: Observation) -> float:
    """The mean |A| of an observation: the trainer's, else that of (r - mean) / (s + 1e-6)."""
    if one.advantage is not None:
        return abs(one.advantage)
    scored = one.scored
    if len(scored) < 2:
        return 0.0
    largest = max(map(abs, scored))
    if largest > LARGEST:  # whose squares no number holds; |A| is the same for rewards that are smaller by a factor
        scored = [reward / largest for reward in scored]
    mean = math.fsum(scored) / len(scored)
    distances = [abs(reward - mean) for reward in scored]
    spread = math.sqrt(math.fsum(distance * distance for distance in distances) / (len(scored) - 1))
    return math.fsum(distances) / len(scored) / (spread + 1e-6)
