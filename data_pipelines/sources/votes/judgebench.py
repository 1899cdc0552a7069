"""JudgeBench (arXiv:2410.12784): pairs of which one is right by a check; outputs of judges add two decisions each, the
second with the replies swapped.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.sources.role_values import UNKNOWN_VERDICT
from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    records,
    response,
    rest,
    unit,
)
from data_pipelines.sources.verdicts import RANKS, word

_USED = (
    "question",
    "response_A",
    "response_B",
    "label",
    "judgments",
    "judge_name",
    "response_model",
    "pair_id",
    "source",
)


def matches(row: Row) -> bool:
    return "question" in row and "response_A" in row and "response_B" in row and "label" in row


def units(row: Row) -> Iterator[Unit]:
    label = word(str(field(row, "label")))
    if label is None:
        raise UnusableRowError("label is not A>B or B>A")
    votes = [judgment("verified", "verifier", ranks=RANKS[label.side])]
    for at, game in enumerate(records(row, "judgments") if row.get("judgments") else []):
        decision = word(str(game["decision"])) if game.get("decision") else None
        if game.get("decision") and decision is None:
            raise UnusableRowError(UNKNOWN_VERDICT)
        if decision is not None:
            side = decision.side if at == 0 else {"a": "b", "b": "a"}.get(decision.side, decision.side)
            judge = game.get("judge_name") or row.get("judge_name") or "judge"
            vote = judgment(judge, "llm", ranks=RANKS[side], extra=rest(game, "decision", "judge_name"))
            votes.append(vote | {"shown_order": [0, 1] if at == 0 else [1, 0]})
    answers = [response(field(row, f"response_{side}"), generator=row.get("response_model")) for side in "AB"]
    meta = rest(row, *_USED)
    yield unit(
        field(row, "question"),
        answers,
        votes,
        in_columns=True,
        row_id=row.get("pair_id"),
        subset=row.get("source"),
        meta=meta,
    )


JUDGEBENCH = Source(
    "judgebench",
    "question, response_A, response_B, label",
    matches,
    units,
    labels="A>B or B>A; in a second judgment swapped",
    is_benchmark=True,
)
