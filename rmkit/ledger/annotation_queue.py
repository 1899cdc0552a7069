"""What a person should look at next, told through the ledger: suspected mislabels, drift, disagreement, thin margins.

Whoever finds such an item (denoising, a running service, evaluation) appends a `queue_item` event; the labeling studio
reads them. The event's id follows from project, unit texts and finder, so finding the same thing twice queues it once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.ids import canonical_json, messages_json
from rmkit.ledger import Ledger
from rmkit.types import Candidates, Event

KIND = "queue_item"
_NAMESPACE = uuid.UUID("5c2f6a0e-9f0b-4c2e-8c1d-6d2f0f1b7a11")


def queue_item(
    candidates: Candidates,
    *,
    project: str,
    found_by: str,
    reason: str,
    priority: float,
    unit: str | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Event:
    """The event that asks people to judge `candidates`.

    `found_by` names command and run (denoise RUN, drift MODEL); `reason` is a sentence for the annotation lead;
    `priority` lies in [0, 1], highest first; `unit` is the unit's content hash (32 hex digits) where it is in the
    warehouse; `evidence` is JSON-ready (margins, votes, scores) and stays hidden until the item is judged.
    Raises ValueError for another priority.
    """
    if not 0 <= priority <= 1:
        raise ValueError(f"priority lies in [0, 1], got {priority}")
    texts = {
        "prompt": messages_json(candidates.prompt),
        "responses": [messages_json(completion.messages) for completion in candidates.completions],
    }
    payload = {"project": project, "found_by": found_by, "unit": unit, **texts}
    return Event(
        kind=KIND,
        actor=f"rmkit {found_by.split()[0]}",
        id=uuid.uuid5(_NAMESPACE, canonical_json(payload)),
        payload={**payload, "reason": reason, "priority": priority, "evidence": dict(evidence or {})},
    )


def enqueue(ledger: Ledger, items: Sequence[Event]) -> int:
    """How many of the items are new; what was queued before stays as it was."""
    known = {recorded.event.id for recorded in ledger.get(item.id for item in items)}
    fresh = {item.id: item for item in items if item.id not in known}
    ledger.append_many(list(fresh.values()))
    return len(fresh)
