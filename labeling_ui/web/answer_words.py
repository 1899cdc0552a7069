"""What an answer says, in a few words for leads; responses by their stored number."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from labeling_ui.projects.definition import TaskDefinition

FIELDS = ("ranks", "scores", "step_labels", "spans", "edit", "value")  # as `work` writes an answer


def in_words(task: TaskDefinition, row: Mapping[str, Any]) -> str:
    """A row of `Work.frame`, said shortly: `1 is better, 2 of 3`, `tie`, `truth 4, 5`, `step 3 is wrong`."""
    if row["verdict"] != "ok":
        reason = f": {row['reason']}" if row["reason"] else ""
        return f"{row['verdict'].replace('_', ' ')}{reason}"
    ranks, scores, steps, spans, edit, value = ast.literal_eval(row["answer"])
    if ranks is not None:
        return _ranks(task, ranks, row["strength"])
    if scores is not None:
        by_aspect: dict[str, list[str]] = {}
        for one in sorted(scores, key=lambda one: (one["aspect"], one["response"])):
            by_aspect.setdefault(one["aspect"], []).append(f"{one['value']:g}")
        return "; ".join(f"{aspect} {', '.join(values)}" for aspect, values in by_aspect.items())
    if steps is not None:
        return steps_in_words(first_wrong(steps))
    if spans is not None:
        return f"{len(spans)} marked" if spans[0].get("label") != "none" else "nothing marked"
    if edit is not None:
        return "an edit"
    return "" if value is None else f"{value:+g}"


def first_wrong(step_labels: Sequence[float | None]) -> int | None:
    """The place (from 0) of the first step that is called wrong, None where none is."""
    return next((at for at, label in enumerate(step_labels) if label == 0), None)


def steps_in_words(wrong: int | None) -> str:
    """`step 3 is wrong` for place 2, `all steps are right` for None."""
    return "all steps are right" if wrong is None else f"step {wrong + 1} is wrong"


def _ranks(task: TaskDefinition, ranks: list[int | None], strength: float | None) -> str:
    if len(ranks) == 2 and None not in ranks:
        if ranks[0] == ranks[1]:
            return "tie"
        how = f", {strength:g} of {len(task.strengths)}" if strength is not None else ""
        return f"{ranks.index(0) + 1} is better{how}"
    return "places " + ", ".join("–" if rank is None else str(rank + 1) for rank in ranks)


def part_of(slot: pl.Expr) -> pl.Expr:
    """own, known or repeat: why the person saw the item."""
    return (
        pl.when(slot.str.starts_with("gold-"))
        .then(pl.lit("known"))
        .when(slot.str.starts_with("repeat-"))
        .then(pl.lit("repeat"))
        .otherwise(pl.lit("own"))
    )
