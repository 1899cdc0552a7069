"""Of every row's responses the `keep` best, by the scores of `aspect` (a reward model's name, see `score`) or by rank.

One response left makes a row to imitate, two or more keep their order as the label. Ties go to the one stored first.
Rows with a response that is not scored are dropped: the best of the others is not the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from data_pipelines.algorithms.responses import narrowed, ranks_of, result_of, rewards_of, scored_label
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    keep: int = 1
    aspect: str = ""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"best_of_n: keep must be positive, got {self.keep}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with at most `keep` responses."""
    kept_rows, dropped = [], []
    for row in frame.to_dicts():
        rewards = rewards_of(row, config.aspect)
        if rewards is None:
            dropped.append((row["id"], "not every response has a score", None))
            continue
        best = sorted(np.argsort(np.negative(rewards), kind="stable")[: config.keep].tolist())
        if len(best) == len(rewards):
            kept_rows.append(row)
            continue
        ranks = ranks_of([rewards[at] for at in best]) if len(best) > 1 else None
        kept_rows.append(narrowed(row, best, ranks=ranks, **scored_label(row, config.aspect)))
    facts = {"responses": sum(len(row["responses"]) for row in kept_rows)}
    return result_of(frame, kept_rows, dropped, facts)
