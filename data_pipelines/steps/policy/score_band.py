"""WebRL's band over tasks (79): those that a critic finds neither settled nor out of reach go on.

    v = mean over the row's responses of the scores in `aspect`
    kept: low <= v <= high

With attempts of the policy as responses and P(success) as scores (step `score`), v is what the critic gives the task:
new tasks of `convert requests` are sampled, scored, and only those in the band are trained on. The band .05 to .75 is
inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any

import polars as pl

from data_pipelines.algorithms.responses import rewards_of
from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "of the scores; empty: the only one"] = ""
    low: Annotated[float, "lowest mean that is kept"] = 0.05
    high: Annotated[float, "highest mean that is kept"] = 0.75

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ConfigError(f"score_band: low lies above high: {self.low} and {self.high}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows inside the band as they were, the others with their mean as evidence."""
    means = [_mean(row, config.aspect) for row in frame.to_dicts()]
    reasons = [_reason(mean, config) for mean in means]
    inside = [mean for mean, reason in zip(means, reasons, strict=True) if mean is not None and reason is None]
    evidence = [None if mean is None else f"{mean:.6g}" for mean in means]
    return partition(
        frame,
        pl.Series(reasons, dtype=pl.String),
        evidence=pl.Series(evidence, dtype=pl.String),
        facts={"mean": round(fmean(inside), 6)} if inside else {},
    )


def _mean(row: dict[str, Any], aspect: str) -> float | None:
    values = rewards_of(row, aspect) if row["scores"] else None
    return None if values is None else fmean(values)


def _reason(mean: float | None, config: Config) -> str | None:
    if mean is None:
        return "not every response has a score"
    if mean < config.low:
        return "below the band"
    return "above the band" if mean > config.high else None
