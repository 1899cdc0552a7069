"""Weave feedback: a row a reaction or a note; those of one creator on one call are one opinion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.sources.gathered.gather import Gather, Gathered
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.unit_builder import Row


def matches(sample: Sequence[Row]) -> bool:
    return all({"weave_ref", "feedback_type", "payload"} <= set(row) for row in sample)


def rows(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    opinions: dict[tuple[str, str], dict[str, Any]] = {}
    for row in file:
        key = str(row["weave_ref"]), str(row.get("creator") or row.get("wb_user_id") or "")
        opinion = opinions.setdefault(key, {"weave_item": key[0], "weave_creator": key[1] or None})
        payload = row["payload"] if isinstance(row["payload"], dict) else {}
        kind = str(row["feedback_type"])
        opinion["created_at"] = max(str(opinion.get("created_at") or ""), str(row.get("created_at") or ""))
        if "reaction" in kind:
            opinion["reaction"] = payload.get("alias") or payload.get("emoji")
        elif "note" in kind:
            opinion["note"] = payload.get("note")
        else:
            opinion[kind] = payload
    yield from opinions.values()


WEAVE = Gather("weave", "Weave reactions and notes", matches, rows)
