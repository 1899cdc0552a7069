"""Prodigy: choices among options, and comparisons of two texts. An answer of ignore or reject keeps `accept` filled
and is no vote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Judgment,
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    record,
    records,
    require,
    response,
    rest,
    unit,
)

_OWN = ("_input_hash", "_task_hash", "_session_id", "_annotator_id", "_view_id", "_timestamp", "answer", "accept")


def is_choice(row: Row) -> bool:
    return isinstance(row.get("options"), list) and "answer" in row and "accept" in row


def choice(row: Row) -> Iterator[Unit]:
    require(is_choice(row), "options, accept or answer")
    options = records(row, "options")
    ids = [option.get("id") for option in options]
    answers = [response(field(option, "text")) for option in options]
    prompt = field(row, "text") if row.get("text") else field(row, "prompt")
    accepted = row.get("accept") if isinstance(row.get("accept"), list) else []
    votes = []
    if row["answer"] == "accept" and accepted:
        if not set(map(str, accepted)) <= set(map(str, ids)):
            raise UnusableRowError("accept names no option")
        chosen = set(map(str, accepted))
        votes.append(_judgment(row, [0 if str(one) in chosen else 1 for one in ids]))
    yield unit(
        prompt, answers, votes, in_columns=True, meta=rest(row, "text", "prompt", "options", *_OWN) | _state(row)
    )


def is_compare(row: Row) -> bool:
    return isinstance(row.get("accept"), Mapping) and isinstance(row.get("reject"), Mapping) and "answer" in row


def compare(row: Row) -> Iterator[Unit]:
    """The annotator saw both in random order: answer accept takes the shown one (accept), reject the other, ignore
    none.
    """
    require(is_compare(row), "accept, reject or answer")
    sides = [row["accept"], row["reject"]]
    mapping = record(row, "mapping")
    answers = [
        response(side.get("text") or field(side, "html"), generator=mapping.get(name))
        for side, name in zip(sides, ("accept", "reject"), strict=True)
    ]
    given = row.get("input")
    prompt = (given.get("text") if isinstance(given, Mapping) else given) or row.get("text") or row.get("prompt")
    votes = []
    if row["answer"] in ("accept", "reject"):
        votes.append(_judgment(row, [0, 1] if row["answer"] == "accept" else [1, 0]))
    meta = rest(row, "accept", "reject", "input", "text", "prompt", "id", *_OWN) | _state(row)
    yield unit(prompt, answers, votes, in_columns=True, row_id=row.get("id"), meta=meta)


def _judgment(row: Row, ranks: list[int | None]) -> Judgment:
    rater = row.get("_annotator_id") or row.get("_session_id") or "annotator"
    return judgment(rater, "human", ranks=ranks, time=row.get("_timestamp"))


def _state(row: Row) -> dict[str, Any]:
    return {"answer": row["answer"]} if row["answer"] != "accept" else {}


CHOICE = Source(
    "prodigy-choice", "text, options, accept, answer", is_choice, choice, labels="ids in accept where answer is accept"
)
COMPARE = Source(
    "prodigy-compare", "accept, reject, mapping, answer", is_compare, compare, labels="answer accept or reject"
)
