"""What a model or a former answer suggests for an item, when a person gets to see it, and what is written down of that.

A task's `suggestions` are off, shown *after* the person's own first choice, or stand in the field of an edit from the
beginning (*prefilled*). Which items show theirs is drawn for each person: the others (1 - `suggestion_share`) are asked
without, so that what suggestions do to answers can be measured. Every answer to an item that has a suggestion says what
it was, whether it was seen, what was chosen before, and whether the answer follows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pyarrow as pa

from labeling_ui.desk.answers import Answer, read_answer
from labeling_ui.desk.item_table import ItemTable, write_item_table
from labeling_ui.desk.leases import Lease
from labeling_ui.projects.definition import TaskDefinition
from rmkit.errors import ConflictError
from rmkit.ids import content_hash
from rmkit.ledger import Ledger

FILE, FIRST = "suggestions.arrow", "first_choice"
NOTED = ("suggested", "drawn", "seen", "followed", "first")  # in the `extra` of a judgment
COMPARED = 20_000  # characters of an edit: beyond, likeness takes too long
_SCHEMA = pa.schema([("item", pa.int64()), ("values", pa.large_string())])


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`values` are fields of a judgment in stored positions (ranks, scores, step_labels, value, or edit with edited);
    `source` says whose."""

    values: Mapping[str, Any]
    source: str


class Suggestions:
    """The stored suggestions of a project folder; empty where none were made."""

    def __init__(self, folder: Path) -> None:
        self._table = ItemTable(folder / FILE, _SCHEMA)
        self.source = self._table.facts.get("source", "")

    def __len__(self) -> int:
        return len(self._table)

    def of(self, number: int) -> Suggestion | None:
        """What is suggested for an item, None where nothing is."""
        row = self._table.row(number)
        return None if row is None else Suggestion(json.loads(row["values"]), self.source)


def write_suggestions(folder: Path, values: Mapping[int, Mapping[str, Any]], *, source: str) -> None:
    """Replace the stored suggestions, by item number, at once."""
    rows = ({"item": item, "values": json.dumps(one)} for item, one in values.items())
    write_item_table(folder / FILE, _SCHEMA, rows, {"source": source})


def likeness(values: Mapping[str, Any], payload: Mapping[str, Any]) -> float:
    """How far a judgment's payload says what is suggested: of an edit the share of text in common, else 1 or 0.

    Scores are compared where something is suggested; strength and reasons are not.
    """
    if "edit" in values:
        if values.get("edited") != (payload.get("extra") or {}).get("edited"):
            return 0.0
        texts = ["\n\n".join(turn["content"] for turn in one["edit"]) for one in (values, payload)]
        if texts[0] == texts[1]:
            return 1.0
        return float(SequenceMatcher(None, texts[0][:COMPARED], texts[1][:COMPARED], autojunk=False).ratio())
    if "scores" in values:
        scores = {(one["response"], one["aspect"]): one["value"] for one in payload.get("scores") or ()}
        return float(all(scores.get((one["response"], one["aspect"])) == one["value"] for one in values["scores"]))
    return float(all(payload.get(name) == value for name, value in values.items()))


def in_places(values: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The same values by shown places, `order` holding the stored positions as they are shown."""
    places = {position: place for place, position in enumerate(order)}
    changed: dict[str, Any] = {}
    if "ranks" in values:
        changed["ranks"] = [values["ranks"][position] for position in order]
    if "scores" in values:
        changed["scores"] = [{**one, "response": places[one["response"]]} for one in values["scores"]]
    if "edited" in values:
        changed["edited"] = places[values["edited"]]
    return {**values, **changed}


class Suggesting:
    """Who sees which suggestion of a project, and when. Not locked: the desk is."""

    def __init__(self, ledger: Ledger, project: str, task: TaskDefinition, stored: Suggestions) -> None:
        self._ledger, self._project, self._task = ledger, project, task
        self._stored = stored if task.suggestions != "off" else None

    def of(self, hold: Lease) -> Suggestion | None:
        """The item's suggestion, seen or not; a repeat has none, for what was seen before would be repeated."""
        if self._stored is None or hold.slot.startswith("repeat-"):
            return None
        return self._stored.of(hold.item)

    def to_show(self, hold: Lease) -> Suggestion | None:
        """The suggestion where it was drawn to be shown to this person, at its time."""
        drawn = int(content_hash(f"{self._task.seed}/{hold.rater}/{hold.item}/suggested")[:8], 16) / 2**32
        return self.of(hold) if drawn < self._task.suggestion_share else None

    def wants_first(self, hold: Lease) -> bool:
        """Whether the person has to choose for themselves before anything is shown."""
        return self._task.suggestions == "after" and self.to_show(hold) is not None and self._first(hold) is None

    def note_first(self, hold: Lease, answer: Answer, payload: Mapping[str, Any]) -> None:
        """Keep a first choice; a later one changes nothing."""
        value = {"answer": answer.model_dump(exclude_unset=True), "payload": dict(payload)}
        try:
            self._ledger.put(FIRST, self._key(hold), value, expect=0)
        except ConflictError:
            return

    def first(self, hold: Lease) -> Answer | None:
        """The first choice, None where there was none."""
        stored = self._first(hold)
        return None if stored is None else read_answer(stored["answer"])

    def seen(self, hold: Lease) -> Suggestion | None:
        """The suggestion that the person sees now: prefilled from the beginning, else after a first choice that is
        another."""
        suggestion = self.to_show(hold)
        if suggestion is None or self._task.suggestions == "prefilled":
            return suggestion
        first = self._first(hold)
        return suggestion if first is not None and likeness(suggestion.values, first["payload"]) < 1 else None

    def noted(self, hold: Lease, payload: Mapping[str, Any]) -> dict[str, Any]:
        """What an answer's event says of its suggestion; nothing for an item without one, and for no answer."""
        suggestion = self.of(hold)
        if suggestion is None or payload.get("verdict", "ok") != "ok":
            return {}
        first = self._first(hold)
        noted = {
            "suggested": {"values": suggestion.values, "source": suggestion.source, "mode": self._task.suggestions},
            "drawn": self.to_show(hold) is not None,
            "seen": self.seen(hold) is not None,
            "followed": likeness(suggestion.values, payload) == 1,
        }
        return noted | ({"first": first["payload"]} if first else {})

    def _first(self, hold: Lease) -> Mapping[str, Any] | None:
        record = self._ledger.record(FIRST, self._key(hold))
        return record.value if record else None

    def _key(self, hold: Lease) -> str:
        # Without the revision: who takes an answer back has seen what is suggested, and cannot choose first again.
        return f"{self._project}/{hold.key}/{hold.rater}"
