"""A project: one task definition over one set of items, kept in the ledger and in `$RMKIT_HOME/label/NAME`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.item_weights import read_weights
from labeling_ui.desk.items import Items, add_part
from labeling_ui.projects.definition import TaskDefinition, parse_definition
from rmkit import paths
from rmkit.errors import ConflictError, DataError, UsageError
from rmkit.ids import parse_messages
from rmkit.ledger import Ledger
from rmkit.ledger.annotation_queue import KIND as QUEUE_ITEM
from rmkit.user import user_name
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve
from warehouse.write.identity import unit_hash

if TYPE_CHECKING:
    from rmkit.types import Conversation

KIND = "project"
COLUMNS = ("unit", "kind", "prompt", "responses", "step_ends", "rubric", "p", "ranks", "step_labels", "n_votes")


@dataclass(frozen=True, slots=True)
class Project:
    """`data` and `gold` are dataset versions (NAME@vN) with their digests; `skipped` counts rows by reason."""

    name: str
    task: TaskDefinition
    data: str
    digest: str
    gold: str | None
    skipped: Mapping[str, int]
    created_by: str

    @property
    def folder(self) -> Path:
        return paths.home() / "label" / self.name

    def desk(self, ledger: Ledger, *, read_only: bool = False) -> Desk:
        """The project's desk in this process; open one and share it."""
        items = Items(self.folder)
        weights = read_weights(self.folder, items)
        return Desk(ledger, self.name, task=self.task, items=items, weights=weights, read_only=read_only)


def create_project(ledger: Ledger, name: str, *, task: TaskDefinition, data: str, gold: str | None = None) -> Project:
    """A new project over the rows of a dataset version that the task can show; known answers come from `gold`.

    Raises UsageError where the name is taken or cannot be a folder, DataError where no row fits the task.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"a project's name has letters, digits, dots, dashes and underscores, got {name!r}")
    if ledger.record(KIND, name) is not None:
        raise UsageError(f"project {name} exists; name another, or see: rmkit label")
    rows, digest, ref = _rows(data)
    known = {} if gold is None else _gold(gold)
    skipped: Counter[str] = Counter()
    items = []
    for row in rows:
        if reason := _unfit(row, task):
            skipped[reason] += 1
        else:
            _, answer = known.pop(row["unit"], (None, None))
            items.append(_item(row, answer))
    items += [_item(row, answer) for row, answer in known.values() if not _unfit(row, task)]
    if not items:
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in skipped.items())
        raise DataError(f"no row of {ref} fits a {task.kind} task: {reasons or 'it is empty'}")
    project = Project(name, task, ref, digest, gold, dict(skipped), user_name())
    add_part(project.folder, items)
    stored = {**asdict(project), "task": asdict(task)}
    del stored["name"]
    try:
        ledger.put(KIND, name, stored, expect=0)
    except ConflictError as error:
        raise UsageError(f"project {name} was created by someone else just now; name another") from error
    return project


def open_project(ledger: Ledger, name: str) -> Project:
    """The project of that name. Raises UsageError listing the ones there are."""
    record = ledger.record(KIND, name)
    if record is None:
        known = ", ".join(one.key for one in ledger.records(KIND)) or "none yet"
        raise UsageError(f"no project {name!r} (there are: {known}); make one with: rmkit label create")
    return _project(name, record.value)


def projects(ledger: Ledger) -> Iterator[Project]:
    """All projects by name."""
    return (_project(record.key, record.value) for record in ledger.records(KIND))


def add_queued(ledger: Ledger, project: Project) -> int:
    """Take the findings queued for this project (suspected mislabels, drift ...) in as items; how many are new."""
    items = []
    for recorded in ledger.events(kinds=[QUEUE_ITEM]):
        summary = recorded.event.payload
        if summary["project"] == project.name:
            kind = {1: "single", 2: "pair"}.get(len(summary["responses"]), "list")
            unit = summary["unit"] or unit_hash(kind, summary["prompt"], responses=summary["responses"])
            row = {"unit": unit, "kind": kind, "prompt": summary["prompt"], "responses": summary["responses"]}
            row |= {name: summary[name] for name in ("priority", "reason")}
            items.append(row | {"evidence": json.dumps(summary["evidence"]) if summary["evidence"] else None})
    return add_part(project.folder, items)


def _project(name: str, stored: Mapping[str, Any]) -> Project:
    task = parse_definition(stored["task"], where=f"project {name}")
    return Project(name, **{**stored, "task": task})


def _rows(ref: str) -> tuple[list[dict[str, Any]], str, str]:
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, ref)
        version = get(connection, version_id)
        return checkout(connection, version_id, columns=COLUMNS).to_pylist(), version.digest, version.ref


def _gold(ref: str) -> dict[str, tuple[dict[str, object], dict[str, object]]]:
    """Rows with a known answer, by unit."""
    rows, _, _ = _rows(ref)
    answers = {row["unit"]: (row, {name: row[name] for name in ("ranks", "step_labels") if row[name]}) for row in rows}
    return {unit: both for unit, both in answers.items() if both[1]}


def _unfit(row: Mapping[str, Any], task: TaskDefinition) -> str | None:
    """Why the task cannot show the row."""
    n = len(row["responses"] or ())
    match task.kind:
        case "pairwise" | "adjudication" if n != 2:
            return "not a pair"
        case "ranking" if n < 2:
            return "fewer than two responses"
        case "steps" if n != 1 or not row["step_ends"]:
            return "not split into steps"
        case "rubric_review" if not row["rubric"]:
            return "no rubric"
        case "edit" if not any(turn.role == "assistant" for turn in _first_response(row)):
            return "no assistant turn"
        case "ratings" | "reaction" | "spans" if n < 1:
            return "no response"
    return None


def _first_response(row: Mapping[str, Any]) -> Conversation:
    return parse_messages(row["responses"][0]) if row["responses"] else ()


def _item(row: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, object]:
    names = ("unit", "kind", "prompt", "responses", "rubric")
    ends = row["step_ends"][0] if row["step_ends"] and len(row["responses"]) == 1 else None
    return {name: row[name] for name in names} | {"step_ends": ends, "gold": json.dumps(answer) if answer else None}
