"""What denoising, drift, evaluation and the playground have queued for a project, as items and as units.

A finding of drift or of the playground is a text that no file ever brought. Its unit goes into the warehouse (dataset
PROJECT-queue) before anybody judges it, or the answers would wait for a file that never comes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rmkit.ids import canonical_json, content_hash, digest
from rmkit.ledger import Ledger
from rmkit.ledger.annotation_queue import KIND
from rmkit.types import Event
from warehouse.store import open_warehouse
from warehouse.write.identity import unit_hash
from warehouse.write.load import SourceInfo, load_units
from warehouse.write.units import REJECT_SCHEMA, UNIT_SCHEMA


def queued_rows(ledger: Ledger, project: str) -> Iterator[dict[str, Any]]:
    """The findings for a project as items; responses in the order in which their unit holds them, which is what an
    answer's places mean."""
    for event in _events(ledger, project):
        payload = event.payload
        responses = sorted(payload["responses"], key=content_hash)
        kind = _kind(responses)
        unit = payload["unit"] or unit_hash(kind, payload["prompt"], responses=responses)
        row = {"unit": unit, "kind": kind, "prompt": payload["prompt"], "responses": responses}
        evidence = json.dumps(payload["evidence"]) if payload["evidence"] else None
        yield row | {name: payload[name] for name in ("priority", "reason")} | {"evidence": evidence}


def waiting(ledger: Ledger) -> str:
    """For which projects something is queued, as a hint."""
    counts = Counter(str(recorded.event.payload["project"]) for recorded in ledger.events(kinds=[KIND]))
    names = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    return f"findings wait for: {names}" if names else "rmkit drift --queue and rmkit denoise suspects queue findings"


def store_findings(ledger: Ledger, project: str, *, author: str) -> None:
    """Load the texts of findings that no file brought as units; again changes nothing."""
    events = [event for event in _events(ledger, project) if event.payload["unit"] is None]
    if not events:
        return
    source = SourceInfo(
        name=f"queue-{project}",
        path=f"findings queued for project {project}",
        format="findings",
        file_sha256=digest([str(event.id) for event in events]),
        text_origin="model",
    )
    units = [_unit(line, event) for line, event in enumerate(events, start=1)]
    with open_warehouse() as connection:
        load_units(
            connection,
            source,
            [pa.RecordBatch.from_pylist(units, schema=UNIT_SCHEMA)],
            rejects=lambda: pa.Table.from_pylist([], schema=REJECT_SCHEMA),
            dataset=f"{project}-queue",
            author=author,
            n_lines=lambda: len(units),
        )


def _events(ledger: Ledger, project: str) -> Iterator[Event]:
    events = (recorded.event for recorded in ledger.events(kinds=[KIND]))
    return (event for event in events if event.payload["project"] == project)


def _unit(line: int, event: Event) -> dict[str, object]:
    payload = event.payload
    meta = {name: payload[name] for name in ("found_by", "reason", "evidence") if payload[name]}
    return {
        "line": line,
        "source_row": str(event.id),
        "kind": _kind(payload["responses"]),
        "prompt": payload["prompt"],
        "responses": [{"messages": text, "generator": None, "step_ends": None} for text in payload["responses"]],
        "judgments": [],
        "meta": canonical_json(meta),
    }


def _kind(responses: list[str]) -> str:
    return {1: "single", 2: "pair"}.get(len(responses), "list")
