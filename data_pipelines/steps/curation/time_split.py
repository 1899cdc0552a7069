"""Split by time, for questions whose answers are known later: no training row knows what a test row asks (SEP).

    train    asked and known before the cut
    test     asked at the cut or later
    dropped  asked before the cut and known only after it: such a row would carry the test period's news into training

`time` and `known` name dates in a row's meta, ISO 8601 (2024-05-31 or with a time of day; without a zone UTC). A row
without both is dropped. Families may stand on both sides: the same share or match is asked about every day.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import polars as pl

from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    cut: Annotated[str, "the first moment of the test period, ISO 8601"]
    time: Annotated[str, "key in meta: when the question was asked"] = "time"
    known: Annotated[str, "key in meta: when its outcome was known"] = "known"

    def __post_init__(self) -> None:
        if _moment(self.cut) is None:
            raise ConfigError(f"time_split: cut is a date such as 2024-05-31, got {self.cut!r}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with `split` train or test."""
    places = [_place(json.loads(meta or "{}"), config) for meta in frame["meta"]]
    split = [place if place in ("train", "test") else None for place in places]
    reason = pl.Series([None if one else place for one, place in zip(split, places, strict=True)], dtype=pl.String)
    rows = {name: split.count(name) for name in ("train", "test")}
    return partition(frame.with_columns(split=pl.Series(split, dtype=pl.String)), reason, facts={"rows_by_split": rows})


def _place(meta: dict[str, Any], config: Config) -> str:
    """train, test, or why the row is in neither."""
    cut, asked, known = _moment(config.cut), _moment(meta.get(config.time)), _moment(meta.get(config.known))
    assert cut is not None
    if asked is None or known is None:
        return "no date of question and outcome"
    if known < asked:
        return "its outcome was known before it was asked"
    if asked >= cut:
        return "test"
    return "train" if known < cut else "known only after the cut"


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
