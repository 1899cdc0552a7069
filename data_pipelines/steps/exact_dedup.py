"""Exact duplicates: rows of one unit (same prompt, same responses in any order) become one row.

The row with the smallest id stays and takes over what the others knew. Votes are united (a rater's identical vote
counts once). Labels are averaged, weighted by n_votes: p_i = sum_r n_r p_ri / sum_r n_r; n_votes add up. Where the
labels were equal, the kept row's label is left as it is. A merged label's ranks follow from its p, and its margin,
which spoke for one side only, is null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from data_pipelines.algorithms.responses import ranks_of
from data_pipelines.scopes import Columns
from data_pipelines.steps import Context, StepResult, partition

MERGED = "merged"


@dataclass(frozen=True, kw_only=True)
class Config:
    merge_labels: bool = True


SCOPE = Columns("id", "unit", "p", "ranks", "step_labels", "votes", "n_votes", "margin", "method")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """One row per unit; the reason of a drop says whether its label agreed, the evidence which row was kept."""
    first = frame.select(pl.col("id").min().over("unit").alias("kept"), "id", "unit", "p", "ranks", "step_labels")
    repeated = first.filter(pl.col("unit").is_duplicated())["unit"].unique()
    label = pl.struct("p", "ranks", "step_labels")
    first_label = label.sort_by("id").first().over("unit")
    summary = first.with_columns(
        reason=pl.when(pl.col("id") != pl.col("kept")).then(
            pl.when(label.eq_missing(first_label))
            .then(pl.lit("exact duplicate"))
            .otherwise(pl.lit("exact duplicate, other label"))
        ),
        evidence=pl.format("kept {}", "kept"),
    )
    groups = frame.filter(pl.col("unit").is_in(repeated.implode())).sort("id").partition_by("unit", maintain_order=True)
    merged = [_merge(group.to_dicts()) for group in groups] if config.merge_labels else []
    facts = {"units_repeated": len(repeated), "labels_merged": sum(row["method"] == MERGED for row in merged)}
    result = partition(frame, summary["reason"], evidence=summary["evidence"], facts=facts)
    return result._replace(kept=replace_rows(result.kept, merged))


def replace_rows(frame: pl.DataFrame, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The frame with these rows in place of the ones with their ids, order unchanged."""
    if not rows:
        return frame
    new = pl.DataFrame(list(rows), schema=frame.schema)
    order = frame.select("id").with_row_index("_at")
    parts = pl.concat([frame.join(new.select("id"), on="id", how="anti"), new])
    return parts.join(order, on="id").sort("_at").drop("_at")


def _merge(rows: Sequence[dict[str, Any]]) -> dict[str, object]:
    """The first row with the votes and the label of all."""
    first = rows[0]
    votes = list({json.dumps(vote): vote for row in rows for vote in row["votes"] or []}.values())
    n_votes = sum(row["n_votes"] or 0 for row in rows)
    if all(row["p"] == first["p"] for row in rows) or any(row["p"] is None for row in rows):
        return first | {"votes": votes, "n_votes": n_votes}
    total = sum(row["n_votes"] or 1 for row in rows)
    p = [round(sum((row["n_votes"] or 1) * row["p"][at] for row in rows) / total, 9) for at in range(len(first["p"]))]
    label = {"p": p, "ranks": ranks_of(p), "margin": None, "method": MERGED}
    return first | label | {"votes": votes, "n_votes": n_votes}
