"""Subset: at most `max_rows` rows, drawn by prompt family, so that comparisons of one prompt stay together.

Before that: of one `split` alone, one row a prompt (the first by id), the `part`-th of so many equal `parts` of the
families; parts of one draw have no family in common.

Families (see split) are taken in the order of SHA-256(seed, number) until the next one would not fit; smaller ones
further down may still fit and are taken. A family of more than LARGE rows gives at most max_rows / FAMILIES of them,
its first by id, while there are others to draw from: a sample of few prompts says little, however many rows it has.
The draw is stable: rows added to the data displace few of those drawn before.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.steps import Context, StepResult, nothing_dropped, partition
from data_pipelines.steps.split import families
from rmkit.errors import ConfigError

LARGE = 32
FAMILIES = 32


@dataclass(frozen=True, kw_only=True)
class Config:
    max_rows: Annotated[int | None, "how many rows at most; all without it"] = None
    split: Annotated[str, "rows of this split alone"] = ""
    one_per_prompt: Annotated[bool, "the first row of each prompt by id"] = False
    part: Annotated[int, "which part of the families, from 1"] = 1
    parts: Annotated[int, "into how many parts the families fall"] = 1
    seed: Annotated[int, "of the draws"] = 0

    def __post_init__(self) -> None:
        if self.max_rows is not None and self.max_rows < 1:
            raise ConfigError(f"subset: max_rows must be positive, got {self.max_rows}")
        if not 1 <= self.part <= self.parts:
            raise ConfigError(f"subset: part lies in 1 .. {self.parts} (parts), got {self.part}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """The rows of the families drawn; of a large family, its first rows by id."""
    before = _restricted(frame, config)
    drawn = _drawn(before.kept, config)
    return drawn._replace(dropped=pl.concat([before.dropped, drawn.dropped]))


def _restricted(frame: pl.DataFrame, config: Config) -> StepResult:
    """The rows of split, prompt and part."""
    rest = frame.select("id", "prompt", split=pl.col("split").fill_null(""))
    why = pl.DataFrame({"id": frame["id"], "reason": pl.Series([None] * len(frame), dtype=pl.String)})
    if config.split:
        why = why.with_columns(reason=pl.when(rest["split"] != config.split).then(pl.lit("another split")))
    if config.one_per_prompt:
        left = rest.filter(why["reason"].is_null())
        first = left.group_by("prompt").agg(pl.col("id").min())["id"]
        again = why["reason"].is_null() & ~why["id"].is_in(first.implode())
        why = why.with_columns(reason=pl.when(again).then(pl.lit("its prompt has another row")).otherwise("reason"))
    if config.parts > 1:
        family = families(frame)
        order = sorted(set(family), key=lambda number: _draw(number, config.seed))
        mine = [number for at, number in enumerate(order) if at % config.parts == config.part - 1]
        other = why["reason"].is_null() & ~family.is_in(mine)
        why = why.with_columns(reason=pl.when(other).then(pl.lit("another part")).otherwise("reason"))
    return partition(frame, why["reason"])


def _drawn(frame: pl.DataFrame, config: Config) -> StepResult:
    if config.max_rows is None or len(frame) <= config.max_rows:
        return nothing_dropped(frame, {"rows_available": len(frame)})
    family = families(frame)
    sizes = family.value_counts(name="rows")
    level = _level(sizes["rows"].to_numpy(), config.max_rows)
    drawn = pl.Series([_draw(number, config.seed) for number in sizes["family"]], dtype=pl.String)
    taken, room = [], config.max_rows
    for number, rows in sizes.sort(drawn).iter_rows():
        if min(rows, level) <= room:
            taken.append(number)
            room -= min(rows, level)
    place = pl.DataFrame({"id": frame["id"], "family": family}).select(pl.col("id").rank("ordinal").over("family"))
    left_out = ~family.is_in(taken) | (place["id"] > level)
    summary = pl.select(reason=pl.when(left_out).then(pl.lit("not sampled")))
    facts = {
        "rows_available": len(frame),
        "families_available": len(sizes),
        "families_taken": len(taken),
        "rows_a_family_at_most": level,
    }
    return partition(frame, summary["reason"], facts=facts)


def _level(sizes: NDArray[np.uint32], max_rows: int) -> int:
    """How many rows one family may give: a share of the draw, or more where all families together would not fill it."""
    share = min(max(LARGE, max_rows // FAMILIES), max_rows)
    filling = bisect_right(range(int(sizes.max()) + 1), max_rows, key=lambda level: int(np.minimum(sizes, level).sum()))
    return max(share, filling - 1)


def _draw(number: int, seed: int) -> str:
    return hashlib.sha256(f"subset {seed} {number}".encode()).hexdigest()
