"""From the choices made in live chats to pairs: the conversation up to there, both replies, and which was better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeling_ui.desk.leases import Leases
from labeling_ui.desk.live import KIND
from rmkit.ids import canonical_json
from rmkit.ledger import Ledger
from rmkit.types import Event
from warehouse.write.units import JUDGMENT_STRUCT


def live_pairs(ledger: Ledger, project: str) -> list[dict[str, object]]:
    """Every choice that was not taken back, as rows in UNIT_SCHEMA, oldest first."""
    revisions = {hold.id: hold.revision for hold in Leases(ledger, project)}
    events = (recorded.event for recorded in ledger.events(kinds=[KIND]))
    chosen = [
        event
        for event in events
        if event.payload["project"] == project
        and revisions.get(event.payload["hold"], event.payload["revision"]) == event.payload["revision"]
    ]
    return [_pair(line, event, event.payload) for line, event in enumerate(chosen, start=1)]


def _pair(line: int, event: Event, choice: Mapping[str, Any]) -> dict[str, object]:
    blank = {field.name: None for field in JUDGMENT_STRUCT}
    judged = blank | {name: choice.get(name) for name in ("ranks", "shown_order", "strength", "rationale")}
    judged |= {"rater": event.actor, "rater_kind": "human", "time": event.time}
    responses = [
        {"messages": text, "generator": model, "step_ends": None}
        for text, model in zip(choice["responses"], choice["models"], strict=True)
    ]
    unit = {"line": line, "source_row": str(event.id), "kind": "pair", "prompt": choice["prompt"]}
    meta = canonical_json({"chat": choice["hold"], "turn": choice["turn"]})
    return unit | {"responses": responses, "judgments": [judged], "meta": meta}
