"""Rows whose texts were rewritten: responses stand in the order of their content hashes, and labels go along.

`parent_order` of the new row says where each response stood before, so that the warehouse can carry over what it knows
of the parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from rmkit.ids import content_hash
from warehouse.write.identity import unit_hash


def renewed(row: Mapping[str, Any], prompt: str, responses: Sequence[str], **facts: Any) -> dict[str, Any]:
    """The row with new texts (`responses` in the old order), unit and response order; `facts` are other new columns."""
    order = sorted(range(len(responses)), key=lambda at: content_hash(responses[at]))
    before = row["parent_order"] or list(range(len(order)))
    new = dict(row) | facts | {"prompt": prompt}
    if row["responses"] is not None:
        new["responses"] = [responses[at] for at in order]
    new = reordered(new, order) | {"parent_order": [before[at] for at in order]}
    about = {name: new[name] for name in ("rubric", "tools", "reference", "step_ends")}
    return new | {"unit": unit_hash(row["kind"], prompt, responses=new["responses"] or (), **about)}


def reordered(row: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """Label and votes of a row whose responses now stand in `order` (new position k holds old position order[k])."""
    place = {old: new for new, old in enumerate(order)}

    def permuted(values: Sequence[Any] | None) -> list[object] | None:
        return None if values is None or len(values) != len(order) else [values[old] for old in order]

    def moved(scores: Sequence[dict[str, Any]] | None) -> list[dict[str, object]] | None:
        return None if scores is None else [s | {"response": place.get(s["response"], s["response"])} for s in scores]

    votes = [
        vote
        | {
            "ranks": permuted(vote["ranks"]),
            **{name: vote[name] and [place[at] for at in vote[name]] for name in ("shown_order", "column_order")},
            "scores": moved(vote["scores"]),
        }
        for vote in row["votes"] or []
    ]
    lists = {name: permuted(row[name]) for name in ("p", "ranks", "generators", "step_ends")}
    return row | lists | {"scores": moved(row["scores"]), "votes": votes}


def with_rows(frame: pl.DataFrame, rows: Mapping[int, Mapping[str, Any]]) -> pl.DataFrame:
    """The frame with the rows at these places replaced."""
    numbered = frame.with_row_index("_at")
    changed = numbered.filter(pl.col("_at").is_in(list(rows)))
    schema = changed.clear().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    new = [{"_at": at, **rows[at]} for at in changed["_at"]]
    table = pl.DataFrame(pa.Table.from_pylist(new, schema=schema), schema=changed.schema)  # half the time of dicts
    return pl.concat([numbered.join(changed.select("_at"), on="_at", how="anti"), table]).sort("_at").drop("_at")
