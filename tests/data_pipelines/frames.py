"""Small pipeline frames for tests of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from data_pipelines.steps import Context, StepResult, as_frame, configure, run_step
from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.ids import assistant_message, content_hash, user_message
from warehouse.versions.checkout import VOTES, checkout
from warehouse.write.identity import example_hash, unit_hash

SCHEMA = pa.schema([*EXAMPLE_SCHEMA, VOTES])
RANKS = {"a": [0, 1], "b": [1, 0], "tie": [0, 0]}


def pair(
    prompt: str, a: str, b: str, votes: Sequence[tuple[str, str]] = (("ann", "a"),), **extra: Any
) -> dict[str, Any]:
    """A row as a checkout gives it; votes are (rater, a | b | tie). `prompt` may be canonical JSON."""
    prompt = prompt if prompt.startswith("[") else user_message(prompt)
    responses = [assistant_message(a), assistant_message(b)]
    order = sorted((0, 1), key=lambda at: content_hash(responses[at]))
    given = [vote(who, [RANKS[said][at] for at in order]) for who, said in votes]
    responses = [responses[at] for at in order]
    share = [0.5 if v["ranks"] == [0, 0] else float(v["ranks"] == [0, 1]) for v in given]
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    row |= {
        "unit": unit_hash("pair", prompt, responses=responses),
        "kind": "pair",
        "source": "made",
        "license": "MIT",
        "prompt": prompt,
        "responses": responses,
        "p": [sum(share) / len(share), 1 - sum(share) / len(share)] if share else None,
        "n_votes": len(given),
        "method": "votes",
        "weight": 1.0,
        "votes": given,
    }
    row |= extra
    return row | {"id": extra.get("id") or example_hash(row["unit"], row)}


def vote(rater: str, ranks: Sequence[int | None], *, shown_order: Sequence[int] | None = None) -> dict[str, Any]:
    return {
        "rater": rater,
        "rater_kind": "human",
        "ranks": ranks,
        "shown_order": shown_order,
        "strength": None,
        "scores": None,
    }


def frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    return as_frame(pa.Table.from_pylist(list(rows), schema=SCHEMA))


def apply(
    name: str, rows: Sequence[dict[str, Any]] | pl.DataFrame, *, benchmarks: pl.DataFrame | None = None, **options: Any
) -> StepResult:
    """The step's result through the checks that the runner makes."""
    given = rows if isinstance(rows, pl.DataFrame) else frame(rows)
    context = Context() if benchmarks is None else Context(benchmarks=benchmarks)
    result = run_step(name, given, configure(name, options, where="test"), context=context)
    assert result.kept.schema == given.schema
    return result


def first_text(row: dict[str, Any], text: str) -> int:
    """Position of the response with that text."""
    return row["responses"].index(assistant_message(text))


def version_frame(
    connection: duckdb.DuckDBPyConnection, version_id: int, *, split: str | None = None, votes: bool = False
) -> pl.DataFrame:
    """The rows of a version as they are stored: messages as JSON text."""
    return pl.DataFrame(pl.from_arrow(checkout(connection, version_id, split=split, votes=votes)))
