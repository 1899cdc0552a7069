"""How fast a project goes and how long it has still to go, from the answers so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from labeling_ui.projects.work import counted

RECENT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Pace:
    """`left` answers are wanted still; `work_h` hours of active work at the median of an answer, None where no time is
    known; `per_day` answers a day over the last seven days (or since the first answer, at least a day of them is
    counted), and `days` that it takes at this pace, None where nobody answered lately."""

    left: int
    work_h: float | None
    per_day: float
    days: float | None


def pace(work: pl.DataFrame, *, left: int, now: datetime | None = None) -> Pace:
    """`work` as in `Work.frame`."""
    now = now or datetime.now(UTC)
    answers = counted(work)
    seconds: Any = answers["active_s"].median()
    first: Any = answers["time"].min()
    begin = max(now - RECENT, min(first or now, now - timedelta(days=1)))
    recent = answers.filter(pl.col("time") >= begin).height
    per_day = recent / ((now - begin) / timedelta(days=1))
    return Pace(left, None if seconds is None else left * seconds / 3600, per_day, left / per_day if per_day else None)
