"""The rubrics that `rmkit rubrics generate` kept, on the rows they were drawn from: who judges these rows uses them.

A row is known by its id, and the rubric is part of what is judged, so the row becomes a new unit whose parent it was.
Rows without a kept rubric stay as they are, or go with `only`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl

from data_pipelines.judge.data.folder import read_lines
from data_pipelines.recipes.recipe import Recipe, run_recipe
from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError, DataError
from rubrics.criteria import parse_rubric, rubric_json

KEPT, AUDIT = "rubrics.jsonl", "audit.jsonl"


@dataclass(frozen=True, kw_only=True)
class Config:
    folder: Annotated[str, "what `rmkit rubrics generate` wrote"]
    only: Annotated[bool, "drop rows without a kept rubric"] = False

    def __post_init__(self) -> None:
        if missing := [name for name in (KEPT, AUDIT) if not (Path(self.folder) / name).is_file()]:
            raise ConfigError(
                f"attach_rubrics: {self.folder} has no {missing[0]}; make it with: rmkit rubrics generate"
            )


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with their rubric. Raises DataError where the folder knows none of them."""
    kept: list[dict[str, Any]] = read_lines(Path(config.folder) / KEPT)
    rubrics = {one["meta"]["instance"]: rubric_json(parse_rubric(one["rubric"])) for one in kept}
    why = {one["id"]: one["dropped"] for one in read_lines(Path(config.folder) / AUDIT) if one["dropped"]}
    ids = frame["id"].to_list()
    if not any(one in rubrics or one in why for one in ids):
        raise DataError(f"attach_rubrics: the rubrics of {config.folder} were drawn from none of these {len(ids)} rows")
    known = pl.Series([rubrics.get(one) for one in ids], dtype=pl.String)
    attached = frame.with_columns(rubric=pl.coalesce(known, "rubric"))
    facts = {
        "attached": int(known.is_not_null().sum()),
        "dropped_rubrics": dict(Counter(why[one] for one in ids if one in why)),
    }
    if not config.only:
        return partition(attached, pl.Series([None] * len(ids), dtype=pl.String), facts=facts)
    reason = pl.Series(
        [None if one in rubrics else why.get(one, "no rubric was written") for one in ids], dtype=pl.String
    )
    return partition(attached, reason, facts=facts)


def attach(data: str, folder: Path, out: str | None, *, only: bool) -> dict[str, object]:
    """A version of `out` (default: the same dataset) with the rubrics; what `rmkit run` prints of it."""
    steps = (("attach_rubrics", Config(folder=str(folder), only=only)),)
    recipe = Recipe(name="attach_rubrics", description="rubrics on the rows they were drawn from", steps=steps)
    return run_recipe(recipe, data, out=out)
