"""A judge's verdicts as ledger events, beside people's: `rmkit sync` makes rows of the `judgment` table of them.

One event per unit and judge; its id follows from both (the judge's fingerprint covers model, prompt and settings), so
judging the same data again with the same judge adds nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from rmkit.judge.judged import (
    Judged,
)
from rmkit.judge.model import (
    Judge,
)
from rmkit.ledger import Ledger
from rmkit.types import Event

_NAMESPACE = uuid.UUID("0b9c8f4e-5a0e-4a43-9f5e-2b6a7d1f3c55")


def judgment_event(judge: Judge, judged: Judged, *, unit: str) -> Event | None:
    """The event of an item whose unit (32 hex digits) is in the warehouse; None where no verdict could be read."""
    info = judge.info
    answers = _ranks(judge, judged) if not info.pointwise else _ratings(judged)
    if answers is None:
        return None
    votes = [
        {"shown": list(v.shown), "values": list(v.reading.values), "unread": v.reading.unread} for v in judged.votes
    ]
    payload = {
        "unit": unit,
        "rater": info.name,
        "rater_kind": "llm",
        "rationale": judged.votes[0].sample.text,
        "extra": {"fingerprint": info.fingerprint, "votes": votes},
        **answers,
    }
    return Event(
        kind="judgment", actor=info.name, payload=payload, id=uuid.uuid5(_NAMESPACE, f"{info.fingerprint} {unit}")
    )


def record_judgments(ledger: Ledger, events: Sequence[Event]) -> int:
    """Append the events that the ledger does not hold yet; how many those were."""
    known = {names.event.id for names in ledger.get(event.id for event in events)}
    fresh = {event.id: event for event in events if event.id not in known}
    ledger.append_many(list(fresh.values()))
    return len(fresh)


def _ranks(judge: Judge, judged: Judged) -> dict[str, Any] | None:
    if len(judged.candidates.completions) == 2:
        answer = judge.comparison_of(judged)
        if answer.unscored:
            return None
        p = answer.p_first
        return {"ranks": [int(p < 0.5), int(p > 0.5)], "confidence": max(p, 1 - p)}
    values = [score.value for score in judged.scores()]
    if any(score.unscored for score in judged.scores()):
        return None
    levels = sorted(set(values), reverse=True)
    return {"ranks": [levels.index(value) for value in values]}


def _ratings(judged: Judged) -> dict[str, Any] | None:
    ratings = [
        {"response": i, "aspect": "judge", "value": score.value}
        for i, score in enumerate(judged.scores())
        if not score.unscored
    ]
    return {"scores": ratings} if ratings else None
