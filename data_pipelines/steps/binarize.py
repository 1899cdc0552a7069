"""One pair out of every row's responses, for DPO and reward models, by scores (`aspect`) or ranks.

    best_worst   the best against the worst (UltraFeedback's way)
    best_random  the best against a random other (Zephyr's way)
    halves       a random one of the upper half against one of the lower (UPO's candidates)

The margin is the difference of the scores. With `second_aspect` (another reward model's scores) the rewards are the
mean of both, each standardized over the row's responses, and rows on whose pair the two do not agree are dropped. Rows
whose rewards are all equal, or not all known, are dropped. Draws depend on seed and unit alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.responses import as_pair, by_rewards, result_of, rewards_of, scored_label
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError

How = Literal["best_worst", "best_random", "halves"]


@dataclass(frozen=True, kw_only=True)
class Config:
    how: Annotated[How, "which two responses make the pair"] = "best_worst"
    aspect: Annotated[str, "the score to go by, such as a reward model's name; none is the only one, or the rank"] = ""
    second_aspect: Annotated[str, "a second score that must order the pair the same way"] = ""
    seed: Annotated[int, "of the draws"] = 0

    def __post_init__(self) -> None:
        if self.second_aspect and self.aspect in ("", self.second_aspect):
            raise ConfigError("binarize: second_aspect goes with another aspect; name both")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows of two responses with a clear winner."""

    def pair(row: dict[str, Any], rewards: list[float]) -> dict[str, object] | str:
        both = [rewards]
        if config.second_aspect:
            second = rewards_of(row, config.second_aspect)
            if second is None:
                return "not every response has the second score"
            both.append(second)
        if len(rewards) < 2 or any(min(one) == max(one) for one in both):
            return "no two responses with different scores"
        mean = rewards if len(both) == 1 else np.mean([_standardized(one) for one in both], axis=0).tolist()
        if min(mean) == max(mean):
            return "no two responses with different scores"
        better, worse = _drawn(mean, row["unit"], config)
        if any(one[better] <= one[worse] for one in both):
            return "the two scores do not agree on the pair"
        return as_pair(row, better, worse, mean) | scored_label(row, config.aspect)

    pairs, dropped = by_rewards(frame, config.aspect, pair)
    return result_of(frame, pairs, dropped, {"pairs": len(pairs)})


def _standardized(rewards: list[float]) -> NDArray[np.float64]:
    values = np.asarray(rewards)
    result: NDArray[np.float64] = (values - values.mean()) / values.std()
    return result


def _drawn(rewards: list[float], unit: str, config: Config) -> tuple[int, int]:
    """Positions of the winner and of the loser, whose rewards differ."""
    order = np.argsort(np.negative(rewards), kind="stable").tolist()
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{config.seed} {unit}".encode()).digest()[:8]))
    match config.how:
        case "best_worst":
            return order[0], order[-1]
        case "best_random":
            lower = [at for at in order if rewards[at] < rewards[order[0]]]
            return order[0], lower[int(draw.integers(len(lower)))]
        case "halves":
            half = len(order) // 2
            upper, lower = order[:half], order[len(order) - half :]
            # All pairs with a winner are equally likely, but never listed: an upper one beats an end of the lower ones.
            rising = sorted(rewards[at] for at in lower)
            beaten = [bisect_left(rising, rewards[at]) for at in upper]
            until = list(accumulate(beaten))
            number = int(draw.integers(until[-1]))
            winner = bisect_right(until, number)
            return upper[winner], lower[half - until[winner] + number]
