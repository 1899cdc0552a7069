"""An event as both back ends store it, and the rule that makes appending idempotent.

A row is text throughout: the payload as canonical JSON, the time as ISO 8601 in UTC with microseconds. Two rows are the
same event when all of it is equal, so a retry is recognized whatever the key order of the payload was.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple, TypeVar

from rmkit.errors import DataError
from rmkit.ids import canonical_json
from rmkit.types import Event


class Recorded(NamedTuple):
    """An event with its place in the ledger: `seq` counts from 1 without gaps, in commit order."""

    seq: int
    event: Event


class Row(NamedTuple):
    id: str
    kind: str
    actor: str
    time: str
    payload: str
    supersedes: str | None


Outcome = list[int] | Exception

PAGE = 5000  # events per read

Entry = TypeVar("Entry")
Place = TypeVar("Place", int, str)


def in_pages(read: Callable[[int, int], list[Recorded]], after_seq: int, limit: int | None) -> Iterator[Recorded]:
    """At most `limit` events behind `after_seq`, asked of `read(after_seq, size)` a page at a time."""
    return paged(read, after_seq, limit, place=attrgetter("seq"), most=PAGE)


def paged(
    read: Callable[[Place, int], list[Entry]],
    after: Place,
    limit: int | None,
    *,
    place: Callable[[Entry], Place],
    most: int,
) -> Iterator[Entry]:
    """At most `limit` entries behind `after`, `most` of them at a time; `place` says where one stands in the order."""
    left = limit
    while left is None or left > 0:
        size = most if left is None else min(most, left)
        page = read(after, size)
        yield from page
        if len(page) < size:
            return
        after = place(page[-1])
        left = None if left is None else left - len(page)


def encode(event: Event) -> Row:
    """The row of an event. Raises DataError where it cannot be stored: no kind or actor, or not JSON."""
    for name, value in (("kind", event.kind), ("actor", event.actor)):
        if not value or "\0" in value:
            raise DataError(f"event {event.id}: {name} must be a non-empty text without NUL, got {value!r}")
    canonical_json([event.kind, event.actor])  # refuses lone surrogates
    if not isinstance(event.payload, Mapping):
        raise DataError(f"event {event.id}: the payload must be a mapping, got {type(event.payload).__name__}")
    time = event.time.astimezone(UTC).isoformat(timespec="microseconds")
    payload = canonical_json(dict(event.payload))
    supersedes = str(event.supersedes) if event.supersedes else None
    return Row(str(event.id), event.kind, event.actor, time, payload, supersedes)


def decode(seq: int, row: Row) -> Recorded:
    """The event behind a stored row."""
    return Recorded(
        seq,
        Event(
            id=uuid.UUID(row.id),
            kind=row.kind,
            actor=row.actor,
            time=datetime.fromisoformat(row.time),
            payload=json.loads(row.payload),
            supersedes=uuid.UUID(row.supersedes) if row.supersedes else None,
        ),
    )


def plan(
    requests: Sequence[Sequence[Row]], stored: Iterable[tuple[int, Row]], last_seq: int
) -> tuple[list[tuple[int, Row]], list[Outcome]]:
    """What to insert, with its seq, and the answer to each request.

    `stored` holds the rows already in the ledger under any id of the requests. A request is all or nothing: one id with
    other content refuses that request (its answer is a DataError) and leaves the others alone.
    """
    known = {row.id: (seq, row) for seq, row in stored}
    fresh: list[tuple[int, Row]] = []
    outcomes: list[Outcome] = []
    for request in requests:
        added: dict[str, tuple[int, Row]] = {}
        try:
            seqs = [_place(row, known, added, last_seq + len(fresh)) for row in request]
        except DataError as error:
            outcomes.append(error)
            continue
        known |= added
        fresh += added.values()
        outcomes.append(seqs)
    return fresh, outcomes


def _place(row: Row, known: dict[str, tuple[int, Row]], added: dict[str, tuple[int, Row]], last: int) -> int:
    seq, stored = known.get(row.id) or added.get(row.id) or (last + len(added) + 1, row)
    if stored != row:
        differing = [name for name in Row._fields if getattr(stored, name) != getattr(row, name)]
        raise DataError(
            f"event {row.id} is already in the ledger (seq {seq}) with another {', '.join(differing)}; "
            "the ledger is append-only: append a new event that supersedes it"
        )
    if row.id not in known:
        added[row.id] = (seq, row)
    return seq
