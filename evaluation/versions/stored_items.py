"""Per-item results: one row per pair for the result file, one row per example in the warehouse table `eval_item`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from evaluation.versions.held_out import HeldOut, Scored
from rmkit.paths import warehouse_path
from warehouse.lineage.runs import recorded_run
from warehouse.store import open_warehouse, transaction

ITEM_SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("fingerprint", pa.string()),
        ("scores", pa.list_(pa.float64())),
        ("p_first", pa.float64()),
        ("unscored", pa.string()),
        ("latency_ms", pa.float64()),
    ]
)


def item_rows(scored: Scored, held_out: HeldOut) -> list[dict[str, Any]]:
    """One row per pair: both scores, margin, label, and why it has no score where it has none."""
    rows = []
    for pair, margin, predicted in zip(held_out.pairs, scored.margin.tolist(), scored.predicted.tolist(), strict=True):
        answers = scored.scores[pair.example]
        row = {
            "model": scored.model.info.name,
            "item": pair.id,
            "family": pair.family,
            "subset": pair.subset,
            "scores": [answers[pair.i].value, answers[pair.j].value],
            "margin": margin,
            "p_first": predicted,
            "label": pair.p,
            "unscored": answers[pair.i].unscored or answers[pair.j].unscored,
        }
        rows.append(row)
    return rows


def store_items(held_out: HeldOut, scored: Sequence[Scored], *, command: str) -> str | None:
    """The id of the new eval run that holds the rows; None where there is no warehouse to write to.

    One row per example and model, in one transaction. `scores` has null where a response is unscored; `p_first` is
    given for pairs only. The suite is named REF:SPLIT, its identity is the version's digest.
    """
    if not warehouse_path().exists():
        return None
    rows = pa.Table.from_pylist([row for one in scored for row in _stored_rows(one, held_out)], schema=ITEM_SCHEMA)
    name = f"{held_out.ref}:{held_out.split}"
    config = {
        "command": command,
        "suite": held_out.ref,
        "split": held_out.split,
        "models": {one.path: one.model.info.fingerprint for one in scored},
    }
    with (
        open_warehouse() as connection,
        transaction(connection),
        recorded_run(connection, "eval", name, config) as run_id,
    ):
        connection.register("eval_rows", rows)
        connection.execute(
            "INSERT INTO eval_item SELECT ?, ?, ?, item, fingerprint, scores, p_first, NULL, unscored, latency_ms "
            "FROM eval_rows",
            [run_id, name, held_out.digest or ""],
        ).fetchall()
        connection.execute(
            "INSERT INTO run_io SELECT ?, 'in', version_id FROM version JOIN dataset USING (dataset_id) "
            "WHERE dataset.name || '@v' || version.number = ? AND digest = ?",
            [run_id, held_out.ref, held_out.digest],
        ).fetchall()
    return str(run_id)


def _stored_rows(scored: Scored, held_out: HeldOut) -> list[dict[str, Any]]:
    p_first = dict(zip((pair.example for pair in held_out.pairs), scored.predicted.tolist(), strict=True))
    return [
        {
            "item": example.id,
            "fingerprint": scored.model.info.fingerprint,
            "scores": [_null(score.value) for score in scored.scores[example.id]],
            "p_first": _null(p_first[example.id]) if len(scored.scores[example.id]) == 2 else None,
            "unscored": next((score.unscored for score in scored.scores[example.id] if score.unscored), None),
            "latency_ms": scored.latency_ms[example.id],
        }
        for example in held_out.examples
    ]


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value
