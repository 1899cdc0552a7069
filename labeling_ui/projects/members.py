"""Who works on which project, and as what.

A project without members is open to everyone who may annotate. The first member closes it to all others but leads.
Adjudication shows people's votes by name, so it is never open: only leads and the project's own adjudicators do it.
"""

from __future__ import annotations

from typing import Literal, get_args

from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import ForbiddenError, Person, by_name
from rmkit.errors import UsageError, unknown
from rmkit.ledger import Ledger

MemberRole = Literal["annotator", "adjudicator"]

KIND = "membership"


def add_member(ledger: Ledger, project: str, name: str, *, role: MemberRole = "annotator") -> None:
    """Make the person a member, or change their role. Raises ForbiddenError where there is no account of that name."""
    if role not in get_args(MemberRole):
        raise UsageError(unknown("role", role, get_args(MemberRole)))
    by_name(ledger, name)
    ledger.put(KIND, f"{project}/{name}", {"role": role, "active": True})


def remove_member(ledger: Ledger, project: str, name: str) -> None:
    """End a membership; what the person judged stays. Raises UsageError where there is none."""
    if name not in members(ledger, project):
        raise UsageError(f"{name!r} is no member of {project}")
    ledger.put(KIND, f"{project}/{name}", {"role": "annotator", "active": False})


def members(ledger: Ledger, project: str) -> dict[str, MemberRole]:
    """The project's members with their roles, by name; empty where it is open to everyone."""
    records = ledger.records(KIND, prefix=f"{project}/")
    return {
        record.key.removeprefix(f"{project}/"): record.value["role"] for record in records if record.value["active"]
    }


def takes_part(ledger: Ledger, project: str, task: TaskDefinition, person: Person) -> bool:
    """Whether the person may see and answer the project's items."""
    if person.may("lead"):
        return True
    inside = members(ledger, project)
    if task.kind == "adjudication":
        return inside.get(person.name) == "adjudicator"
    return person.may("annotate") and (not inside or person.name in inside)


def require_part(ledger: Ledger, project: str, task: TaskDefinition, person: Person) -> None:
    """Raises ForbiddenError unless `takes_part`."""
    if not takes_part(ledger, project, task, person):
        what = "adjudicator" if task.kind == "adjudication" else "member"
        raise ForbiddenError(f"{person.name} is no {what} of {project}; ask its lead")
