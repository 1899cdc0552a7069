"""What a trainer tells the prompt book of one prompt's rollouts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from rmkit.errors import ConfigError, DataError, unknown

LARGEST = 1e100  # sums and squares of what a book adds up stay finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """`rewards` are raw outcomes, None where unscored, not shaped ones. Without rewards a prompt is only made known.

    `category` and `parent` (the prompt that this one rewrites) stay what they were said to be first. `advantage` is the
    mean |A| that the trainer computed; without it GRPO's is. `drift` is the token mean of |log p_now - log p_then| on
    the prompt's previous response. Rollouts with a hint say its `tier`, those of a later stage their `stage`; neither
    counts for the pass rate. `score` feeds the quantile trackers, `entropy` the entropy history. `rollouts` are names
    of the rollouts, in the order of the rewards, for the replay of wins.
    """

    prompt: str
    rewards: tuple[float | None, ...] = ()
    category: str | None = None
    parent: str | None = None
    advantage: float | None = None
    drift: float | None = None
    tier: int = 0
    stage: str = "direct"
    score: float | None = None
    entropy: float | None = None
    rollouts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ConfigError("an observation needs a prompt")
        if self.rollouts and len(self.rollouts) != len(self.rewards):
            raise ConfigError(f"{len(self.rollouts)} names of rollouts for {len(self.rewards)} rewards")

    @property
    def scored(self) -> list[float]:
        """The rewards that are finite numbers."""
        return [float(one) for one in self.rewards if is_finite(one)]

    def as_json(self) -> dict[str, Any]:
        """Only what differs from the defaults; rewards that are no finite number are null."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["rewards"] = [one if is_finite(one) else None for one in self.rewards]
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if value not in (defaults[key], [])
        }


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether it is a number that a float holds; a whole number of 400 digits is none."""
    try:
        return value is not None and math.isfinite(value)
    except OverflowError:
        return False


# A book of a hundred thousand prompts is read by these, so they are looked up and not derived from type hints.
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("prompt", "category", "parent", "stage"), str),
    **dict.fromkeys(("advantage", "drift", "score", "entropy"), (int, float)),
    **dict.fromkeys(("rewards", "rollouts"), (list, tuple)),
    "tier": int,
}
_OPTIONAL = ("category", "parent", "advantage", "drift", "score", "entropy")


def observation_of(values: Mapping[str, Any]) -> Observation:
    """The observation behind JSON. Raises DataError for an unknown key or a wrong value."""
    for key, value in values.items():
        if key not in _KINDS:
            raise DataError(f"observation: {unknown('key', key, list(_KINDS))}")
        if not isinstance(value, _KINDS[key]) and not (value is None and key in _OPTIONAL):
            raise DataError(f"observation: {key}: got {value!r}")
    for key in ("advantage", "drift", "score", "entropy"):
        if (value := values.get(key)) is not None and not (is_finite(value) and abs(value) <= LARGEST):
            raise DataError(f"observation: {key}: expected a number up to {LARGEST:g}, got {str(value)[:30]}")
    for reward in values.get("rewards", ()):
        if not isinstance(reward, int | float | None):
            raise DataError(f"observation: rewards: expected numbers or null, got {reward!r}")
    lists: dict[str, Any] = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    try:
        return Observation(**{**values, **lists})
    except (ConfigError, TypeError) as error:
        raise DataError(f"observation: {error}") from error
