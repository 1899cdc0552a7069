"""Suggestions for a project's items: of a reward model of this home, or of the answers to the same items elsewhere."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from labeling_ui.desk.items import Item, Items
from labeling_ui.desk.suggestions import write_suggestions
from labeling_ui.projects.definition import SUGGESTED, TaskDefinition
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, note_change, open_project
from rmkit.cli import display
from rmkit.errors import UsageError, unknown
from rmkit.ledger import Ledger
from rmkit.models import load_model
from rmkit.models.artifact import aliases
from rmkit.types import Candidates, Completion, Event, RewardModel, Score
from warehouse.events.payloads import KINDS

KIND = "label_suggestions"
OF_MODEL = ("pairwise", "ranking", "ratings")
WINDOW = 128
FIELDS = ("ranks", "scores", "step_labels", "value", "edit")  # of a judgment; what else it says is nobody's to repeat

Values = Mapping[str, Any]


def suggest_by_model(ledger: Ledger, project: Project, lead: Person, name: str, *, trusted: bool = False) -> int:
    """Suggest what a model's scores say; how many items have one now.

    `trusted` lets `name` be all that MODEL may be; otherwise it is a model of this home. Items that the model could not
    score have none. Raises UsageError for an unknown model, and for a task that scores say nothing about.
    """
    lead.require("lead", "make suggestions")
    if project.task.kind not in OF_MODEL:
        raise UsageError(f"a model suggests for {', '.join(OF_MODEL)}; {project.name} is a {project.task.kind} project")
    folders = {folder.name: folder for folder in aliases.artifacts()}
    if not trusted and name not in folders:
        raise UsageError(unknown("model", name, folders))
    model, items = load_model(folders.get(name, name)), Items(project.folder)
    values: dict[int, Values] = {}
    with display.progress("scoring", len(items)) as advance:
        for start in range(0, len(items), WINDOW):
            numbers = range(start, min(start + WINDOW, len(items)))
            values |= _scored(project.task, model, [items[number] for number in numbers])
            advance(len(numbers))
    return _store(ledger, project, lead, values, source=f"model {model.info.name} {model.info.fingerprint[:8]}")


def suggest_by_answers(ledger: Ledger, project: Project, lead: Person, source: str) -> int:
    """Suggest what most people said in another project of the same kind, the newest of equally frequent answers; how
    many items have one now. Raises UsageError where the kinds differ or no item was answered there."""
    lead.require("lead", "make suggestions")
    kind = open_project(ledger, source).task.kind
    if kind != project.task.kind:
        raise UsageError(f"{source} is a {kind} project, {project.name} a {project.task.kind} project")
    if kind not in {one for kinds in SUGGESTED.values() for one in kinds}:
        raise UsageError(f"nothing is suggested in a {kind} project")
    by_unit: dict[str, list[str]] = defaultdict(list)
    for event in _valid(ledger, source):
        by_unit[event.payload["unit"]].append(json.dumps(_values(event.payload), sort_keys=True))
    items, values = Items(project.folder), {}
    for number, unit in enumerate(items.column("unit").to_pylist()):
        if votes := by_unit.get(unit):
            counts = Counter(votes)
            newest = {vote: at for at, vote in enumerate(votes)}
            values[number] = json.loads(max(counts, key=lambda vote: (counts[vote], newest[vote])))
    return _store(ledger, project, lead, values, source=f"answers of {source}")


def _store(ledger: Ledger, project: Project, lead: Person, values: Mapping[int, Values], *, source: str) -> int:
    if not values:
        raise UsageError(f"{source}: nothing that could be suggested for the items of {project.name}")
    write_suggestions(project.folder, values, source=source)
    payload = {"project": project.name, "source": source, "items": len(values)}
    ledger.append(Event(kind=KIND, actor=lead.name, payload=payload))
    note_change(ledger, project.name)
    return len(values)


def _scored(task: TaskDefinition, model: RewardModel, items: list[Item]) -> Iterator[tuple[int, Values]]:
    candidates = [Candidates(item.prompt, tuple(Completion(one) for one in item.responses)) for item in items]
    for item, scores in zip(items, model.score(candidates), strict=True):
        if values := _of_scores(task, scores):
            yield item.number, values


def _of_scores(task: TaskDefinition, scores: list[Score]) -> Values | None:
    if any(one.unscored is not None or math.isnan(one.value) for one in scores):
        return None
    if task.kind != "ratings":
        order = sorted({one.value for one in scores}, reverse=True)
        return {"ranks": [order.index(one.value) for one in scores]}
    rated = [
        {"response": at, "aspect": aspect.name, "value": float(min(max(round(value), aspect.low), aspect.high))}
        for aspect in task.aspects
        for at, one in enumerate(scores)
        if (value := one.aspects.get(aspect.name)) is not None and math.isfinite(value)
    ]
    return {"scores": rated} if rated else None


def _valid(ledger: Ledger, project: str) -> list[Event]:
    """Answers of a project to its own items that were not taken back, oldest first."""
    events = [
        one.event
        for one in ledger.events(kinds=KINDS)
        if (one.event.payload.get("extra") or {}).get("project") == project
    ]
    replaced = {event.supersedes for event in events if event.supersedes}
    return [
        event
        for event in events
        if event.id not in replaced
        and event.payload.get("verdict", "ok") == "ok"
        and str(event.payload["extra"]["slot"]).isdigit()
    ]


def _values(payload: Values) -> dict[str, Any]:
    values = {name: payload[name] for name in FIELDS if payload.get(name) is not None}
    return values | ({"edited": payload["extra"]["edited"]} if "edit" in values else {})
