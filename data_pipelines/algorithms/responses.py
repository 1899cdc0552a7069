"""Rows that lose or gain responses: everything that counts responses by position goes along.

The new row's `parent_order` says where its responses stood in the warehouse (NEW: nowhere), so lineage and who wrote
what follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from data_pipelines.steps import DROPPED, StepResult
from warehouse.write.rewrite import NEW

KINDS = {1: "single", 2: "pair"}
SCORED = "scored"  # the method of a label that rewards decided
UNLABELED: dict[str, Any] = {
    "step_ends": None,
    "step_labels": None,
    "p": None,
    "ranks": None,
    "margin": None,
    "votes": [],
}


def narrowed(row: Mapping[str, Any], positions: Sequence[int], **label: Any) -> dict[str, Any]:
    """The row with the responses at these positions, in the stored order, and no label but the one given."""
    places = sorted(positions)
    place = {old: new for new, old in enumerate(places)}
    before = row["parent_order"] or range(len(row["responses"]))
    scores = [{**one, "response": place[one["response"]]} for one in row["scores"] or [] if one["response"] in place]
    result = dict(row) | {
        "kind": KINDS.get(len(places), "list"),
        "responses": [row["responses"][at] for at in places],
        "generators": [row["generators"][at] for at in places] if row["generators"] else None,
        "parent_order": [before[at] for at in places],
        "scores": scores or None,
    }
    return result | UNLABELED | label


def as_pair(row: Mapping[str, Any], better: int, worse: int, rewards: Sequence[float]) -> dict[str, object]:
    """The row with these two responses, the first of them preferred; the margin is the difference of their rewards."""
    first = better < worse
    label = {"p": [float(first), float(not first)], "ranks": [int(not first), int(first)]}
    return narrowed(row, [better, worse], **label, margin=rewards[better] - rewards[worse])


def widened(row: Mapping[str, Any], texts: Sequence[str], *, author: str, keep_given: bool) -> dict[str, object]:
    """The row with new responses (message lists as JSON) behind those it had, or in place of them, and no label."""
    inputs = list(row["responses"] or []) if keep_given else []
    known = set(inputs)
    new = [text for text in texts if text not in known]
    before = row["parent_order"] or range(len(inputs))
    result = dict(row) | {
        "kind": KINDS.get(len(inputs) + len(new), "list"),
        "responses": inputs + new,
        "generators": [*((row["generators"] or [None] * len(inputs)) if inputs else []), *[author] * len(new)],
        "parent_order": [*(before if inputs else []), *[NEW] * len(new)],
        "scores": row["scores"] if inputs else None,
    }
    return result | UNLABELED


def rewards_of(row: Mapping[str, Any], aspect: str) -> list[float] | None:
    """[N] each response's score in one aspect ("" where the row has a single one), or its rank turned around; None
    where a response has neither."""
    if by_scores(row, aspect):
        values = dict.fromkeys(range(len(row["responses"] or [])), np.nan)
        for one in row["scores"] or []:
            if one["aspect"] == aspect or not aspect:
                values[one["response"]] = one["value"]
        rewards = list(values.values())
    else:
        rewards = [np.nan if rank is None else -float(rank) for rank in row["ranks"]]
    return rewards if rewards and np.isfinite(rewards).all() else None


def by_scores(row: Mapping[str, Any], aspect: str) -> bool:
    """Whether `rewards_of` reads scores rather than ranks; the label made of them then counts no votes."""
    return bool(aspect) or not row["ranks"]


def scored_label(row: Mapping[str, Any], aspect: str) -> dict[str, object]:
    """How a label made of `rewards_of` came about."""
    return {"method": SCORED, "n_votes": 0} if by_scores(row, aspect) else {}


def ranks_of(rewards: Sequence[float]) -> list[int]:
    """[N] 0 for the best, equal rewards share a rank, no rank is left out."""
    place = {value: rank for rank, value in enumerate(sorted(set(rewards), reverse=True))}
    return [place[value] for value in rewards]


def by_rewards(
    frame: pl.DataFrame, aspect: str, choose: Callable[[dict[str, Any], list[float]], dict[str, Any] | str]
) -> tuple[list[dict[str, Any]], list[tuple[str, str, str | None]]]:
    """Rows as `choose` gives them back from a row and its rewards, and (id, reason, None) of those for which it gives a
    reason, or whose responses are not all scored."""
    rows: list[dict[str, Any]] = []
    dropped: list[tuple[str, str, str | None]] = []
    for row in frame.to_dicts():
        rewards = rewards_of(row, aspect)
        chosen = "not every response has a score" if rewards is None else choose(row, rewards)
        if isinstance(chosen, str):
            dropped.append((row["id"], chosen, None))
        else:
            rows.append(chosen)
    return rows, dropped


def result_of(
    frame: pl.DataFrame,
    rows: Sequence[Mapping[str, Any]],
    dropped: Sequence[tuple[str, str, str | None]],
    facts: Mapping[str, Any],
) -> StepResult:
    """The result of a step that went row by row; `dropped` are (id, reason, evidence)."""
    return StepResult(
        pl.DataFrame(rows, schema=frame.schema), pl.DataFrame(dropped, schema=DROPPED, orient="row"), dict(facts)
    )
