"""Versions of a project's task: a changed word is another task, and the answers keep the id of the one they were given
under. Every version stays in the ledger with who made it and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from labeling_ui.projects.definition import TaskDefinition, parse_definition
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import KIND as PROJECT
from labeling_ui.projects.project import Project, note_change, open_project
from rmkit.errors import UsageError
from rmkit.ledger import Ledger
from rmkit.types import Event

KIND = "project_task"


@dataclass(frozen=True, slots=True)
class Revision:
    """A version of the task, with when and by whom it came into use."""

    task: TaskDefinition
    lead: str
    why: str
    time: datetime


def revise_task(ledger: Ledger, project: Project, lead: Person, task: TaskDefinition, *, why: str = "") -> Project:
    """The project under its changed task, which a running studio takes up at once.

    Raises UsageError where the kind changes (old answers would say something else) and where nothing does,
    ConflictError where somebody else changed the task since `project` was opened.
    """
    lead.require("lead", "change the task")
    if task.kind != project.task.kind:
        raise UsageError(f"{project.name} is a {project.task.kind} project and stays one; make another for {task.kind}")
    if task.id == project.task.id:
        raise UsageError("nothing is changed in the task")
    record = ledger.record(PROJECT, project.name)
    if record is None or open_project(ledger, project.name).task.id != project.task.id:
        raise UsageError(f"somebody else changed the task of {project.name} meanwhile; look at it again")
    before = {"project": project.name, "task": asdict(project.task), "id": project.task.id, "why": "as it was created"}
    if not revisions(ledger, project.name):
        ledger.append(Event(kind=KIND, actor=project.created_by, payload=before))
    ledger.put(PROJECT, project.name, {**record.value, "task": asdict(task)}, expect=record.version)
    payload = {"project": project.name, "task": asdict(task), "id": task.id, "why": why}
    ledger.append(Event(kind=KIND, actor=lead.name, payload=payload))
    note_change(ledger, project.name)
    return open_project(ledger, project.name)


def revisions(ledger: Ledger, project: str) -> list[Revision]:
    """The task's versions, the newest first; empty where it never changed."""
    events = [one.event for one in ledger.events(kinds=[KIND]) if one.event.payload["project"] == project]
    return [_revision(event.payload, event.actor, event.time) for event in reversed(events)]


def _revision(payload: Mapping[str, Any], lead: str, time: datetime) -> Revision:
    return Revision(parse_definition(payload["task"], where="a stored task"), lead, payload["why"], time)
