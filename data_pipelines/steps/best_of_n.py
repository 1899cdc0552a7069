"""Of every row's responses the `keep` best, by the scores of `aspect` (a reward model's name, see `score`) or by rank.

One response left makes a row to imitate, two or more keep their order as the label. Ties go to the one stored first.
Rows with a response that is not scored are dropped: the best of the others is not the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import polars as pl

from data_pipelines.algorithms.responses import by_rewards, narrowed, ranks_of, result_of, scored_label
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    keep: Annotated[int, "how many responses stay"] = 1
    aspect: Annotated[str, "the score to go by, such as a reward model's name; none is the only one, or the rank"] = ""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"best_of_n: keep must be positive, got {self.keep}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with at most `keep` responses."""

    def best(row: dict[str, Any], rewards: list[float]) -> dict[str, object]:
        places = sorted(np.argsort(np.negative(rewards), kind="stable")[: config.keep].tolist())
        if len(places) == len(rewards):
            return row
        ranks = ranks_of([rewards[at] for at in places]) if len(places) > 1 else None
        return narrowed(row, places, ranks=ranks, **scored_label(row, config.aspect))

    rows, dropped = by_rewards(frame, config.aspect, best)
    return result_of(frame, rows, dropped, {"responses": sum(len(row["responses"]) for row in rows)})
