"""What leads say of single answers: accepted, returned to who gave it, or a comment.

The newest word on an answer is a record, for pages; each word is also an event and stays in the ledger for good. A
returned answer is superseded, and its item is open again for the same person (`Desk.send_back`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from labeling_ui.projects.people import Person
from rmkit.errors import UsageError, unknown
from rmkit.ledger import Ledger
from rmkit.types import Event

KIND = "label_review"
Decision = Literal["accepted", "returned", "commented"]


@dataclass(frozen=True, slots=True)
class Review:
    """A lead's word on one answer (`event` is its judgment's id)."""

    event: str
    rater: str
    decision: Decision
    comment: str
    lead: str
    time: str


def write_review(
    ledger: Ledger, project: str, lead: Person, *, event: str, rater: str, decision: Decision, comment: str = ""
) -> Review:
    """Raises ForbiddenError for an annotator, UsageError where a return or a comment says nothing."""
    lead.require("lead", "review answers")
    if decision not in get_args(Decision):
        raise UsageError(unknown("decision", decision, get_args(Decision)))
    if decision != "accepted" and not comment.strip():
        raise UsageError(f"an answer that is {decision} needs a comment: its annotator reads it")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    review = Review(event, rater, decision, comment.strip(), lead.name, now)
    ledger.append(Event(kind=KIND, actor=lead.name, payload={"project": project, **asdict(review)}, id=uuid.uuid4()))
    ledger.put(KIND, f"{project}/{event}", asdict(review))
    return review


def review_of(ledger: Ledger, project: str, event: str) -> Review | None:
    """The newest word on the answer."""
    record = ledger.record(KIND, f"{project}/{event}")
    return None if record is None else _review(record.value)


def reviews(ledger: Ledger, project: str) -> dict[str, Review]:
    """The newest word on each answer that has one, by the answer's event."""
    stored = (_review(record.value) for record in ledger.records(KIND, prefix=f"{project}/"))
    return {review.event: review for review in stored}


def _review(value: Mapping[str, Any]) -> Review:
    return Review(**value)
