"""A cleaning step: drops rows with a reply of more than `max_characters`, as stored (with role and brackets)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from data_pipelines.steps import Context, StepResult, partition


@dataclass(frozen=True, kw_only=True)
class Config:
    max_characters: int = 2000


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    longest = frame["responses"].list.eval(pl.element().str.len_chars()).list.max()
    reason = pl.select(pl.when(longest > config.max_characters).then(pl.lit("a reply is too long"))).to_series()
    return partition(frame, reason)
