"""SHP and SHP-2 (arXiv:2110.08420): two comments on one Reddit or StackExchange post; the higher voted later one wins.

`labels` is 1 where human_ref_A is preferred and 0 where human_ref_B is; the ratio of votes is the strength.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field, judgment, response, rest, unit

_USED = ("history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B", "score_ratio", "domain")


def matches(row: Row) -> bool:
    return "history" in row and "human_ref_A" in row and "human_ref_B" in row


def pairs(row: Row) -> Iterator[Unit]:
    label = field(row, "labels")
    if str(label) not in ("0", "1"):
        raise UnusableRowError("labels is not 0 or 1")
    scores = [(at, "votes", row[name]) for at, name in enumerate(("score_A", "score_B")) if row.get(name) is not None]
    ranks = [0, 1] if str(label) == "1" else [1, 0]
    verdict = judgment("reddit-votes", "human", ranks=ranks, strength=row.get("score_ratio"), scores=scores)
    answers = [response(field(row, name), generator="human") for name in ("human_ref_A", "human_ref_B")]
    ids = [str(row[name]) for name in ("post_id", "c_root_id_A", "c_root_id_B") if row.get(name)]
    row_id = "/".join(ids) if len(ids) == 3 else None
    yield unit(
        field(row, "history"),
        answers,
        [verdict],
        in_columns=True,
        row_id=row_id,
        subset=row.get("domain"),
        meta=rest(row, *_USED),
    )


SHP = Source("shp", "history, human_ref_A, human_ref_B, labels", matches, pairs, labels="1 the first, 0 the second")
