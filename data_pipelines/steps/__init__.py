"""Cleaning steps: each takes a frame and gives back what it keeps, what it drops and why.

A frame is a polars DataFrame with the columns of EXAMPLE_SCHEMA (rmkit.data.example), rows in a fixed order, and two
more: `votes`, one list per row of {rater, rater_kind, ranks, shown_order, column_order, strength, scores}, positions in
the row's own response order; and `parent_order`, where each response stood in the warehouse, null where it has not
moved. During a recipe `id` stays what it was in the version the recipe started from, even where a step rewrites text
or label, so that a drop can always be traced; the warehouse computes the new ids when the rows are stored.

A step lives in a module of its own (here, or in another package by an entry point `rmkit.steps`): a frozen config
`Config`, `step(frame, config, context) -> StepResult`, and, where it need not see the whole frame at once, its `SCOPE`
(see `data_pipelines.scopes`). It never mutates its input, never invents rows, and says for
each dropped row why. `run_step` checks that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from data_pipelines.scopes import Pieces, Rows, joined
from rmkit import plugins
from rmkit.config import build
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.garbage import few_full_collections
from warehouse.write.rewrite import PARENT_ORDER

DROPPED = pl.Schema({"id": pl.String, "reason": pl.String, "evidence": pl.String})


class StepResult(NamedTuple):
    """`dropped` has the columns id, reason, evidence; `facts` is JSON-ready: what the step measured and changed.

    `records` are further rows to store, by warehouse table (see warehouse.lineage.reliability_audit), each naming the
    row's `id`.
    """

    kept: pl.DataFrame
    dropped: pl.DataFrame
    facts: dict[str, Any]
    records: Mapping[str, pl.DataFrame] = {}


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may need besides its frame: the benchmarks (name, source_row, prompt, responses) of the warehouse,
    and the versions that steps name as `gold`, by that name."""

    benchmarks: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(
            schema={"name": pl.String, "source_row": pl.String, "prompt": pl.String, "responses": pl.List(pl.String)}
        )
    )
    gold: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def as_frame(checkout: pa.Table) -> pl.DataFrame:
    """The frame of a checkout with votes."""
    moved = pa.nulls(checkout.num_rows, PARENT_ORDER.type)
    return pl.DataFrame(pl.from_arrow(checkout.append_column(PARENT_ORDER, moved)))


def configure(name: str, options: Mapping[str, Any], *, where: str) -> Any:
    """The named step's config from TOML options. Raises ConfigError for an unknown step or key, naming the known."""
    try:
        step = step_module(name)
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from error
    return build(step.Config, options, where=f"{where} ({name})")


def run_step(
    name: str, frame: pl.DataFrame | Pieces, config: Any, *, context: Context, finish: bool = True
) -> StepResult:
    """The step's result, checked: every row is either kept or dropped once, with a reason. Pieces are for steps whose
    scope is Streamed; without `finish` facts of pieces can still be added up."""
    module = step_module(name)
    scope: Any = getattr(module, "SCOPE", None)
    with few_full_collections():
        if isinstance(frame, pl.DataFrame):
            before, result = frame["id"], module.step(frame, config, context)
        else:
            before = pl.concat([piece["id"] for piece in frame])
            result = getattr(module, scope.function)(frame, config, context)
    ids = pl.concat([result.kept["id"], result.dropped["id"]])
    if len(ids) != len(before) or not ids.sort().equals(before.sort()):
        raise DataError(
            f"step {name} lost track of rows: {len(before)} came in, {len(result.kept)} kept and "
            f"{len(result.dropped)} dropped do not add up to the same ids; this is a bug in the step"
        )
    if result.dropped["reason"].null_count():
        raise DataError(f"step {name} dropped {result.dropped['reason'].null_count()} rows without a reason; a bug")
    return finished(result, scope) if finish else result


def finished(result: StepResult, scope: Any) -> StepResult:
    """The result with its facts as they are stored."""
    return result._replace(facts=scope.finish(dict(result.facts))) if isinstance(scope, Rows) else result


def with_texts_from(frame: pl.DataFrame, result: StepResult) -> StepResult:
    """The result of a step that keeps ids and changed columns, as one of `frame`."""
    return result._replace(kept=joined(frame, result.kept))


def partition(
    frame: pl.DataFrame, reason: pl.Series, *, evidence: pl.Series | None = None, facts: Mapping[str, Any] | None = None
) -> StepResult:
    """Drop the rows that have a reason (aligned with the frame; null keeps the row)."""
    inputs = reason.cast(pl.String).alias("reason")
    shown = (evidence if evidence is not None else pl.repeat(None, len(frame), eager=True)).cast(pl.String)
    dropped = frame.select("id").with_columns(inputs, shown.alias("evidence")).filter(pl.col("reason").is_not_null())
    return StepResult(frame.filter(inputs.is_null()), dropped, dict(facts or {}))


def nothing_dropped(frame: pl.DataFrame, facts: Mapping[str, Any]) -> StepResult:
    """The frame kept whole."""
    return StepResult(frame, pl.DataFrame(schema=DROPPED), dict(facts))


def step_module(name: str) -> Any:
    """The module or object with a step's `Config` and `step`; a recipe is given at start, so "module:object" counts."""
    return plugins.resolve("steps", name, trusted=True)
