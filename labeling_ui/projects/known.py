"""Known answers that a lead adds to a project: of rows chosen there, or of another dataset version.

An item with a known answer measures people and is no longer one of those to be answered, so only items that nobody has
opened can become one. The answers are ledger records, laid over the items when a project is opened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeling_ui.desk.items import Items, add_part
from labeling_ui.desk.known_answers import KIND, known_answers
from labeling_ui.desk.leases import KIND as ASSIGNMENT
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, known_rows, note_change
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger

FIELDS = ("ranks", "step_labels")


@dataclass(frozen=True, slots=True)
class KnownAdded:
    """How many items became known ones, and why others did not."""

    items: int
    left_out: Mapping[str, int]


def add_known(
    ledger: Ledger, project: Project, lead: Person, answers: Mapping[int, Mapping[str, list[Any]]]
) -> KnownAdded:
    """Make items known ones, by number; an answer is {"ranks": ...} or {"step_labels": ...} in stored order.

    Raises DataError for an answer that does not fit its item.
    """
    lead.require("lead", "add known answers")
    items = Items(project.folder, known_answers(ledger, project.name))
    left_out: Counter[str] = Counter()
    free, fitting = set(open_items(ledger, project, items).tolist()), {}
    for number, answer in answers.items():
        _check(items, number, answer)
        if items.gold(number) is not None:
            left_out["known already"] += 1
        elif number not in free:
            left_out["somebody has opened it already"] += 1
        else:
            fitting[number] = dict(answer)
    for number, answer in fitting.items():
        ledger.put(KIND, f"{project.name}/{number:07d}", answer)
    if fitting:
        note_change(ledger, project.name)
    return KnownAdded(len(fitting), dict(left_out))


def open_items(ledger: Ledger, project: Project, items: Items) -> NDArray[np.int64]:
    """Numbers of the items that nobody has opened and whose answer is not known, ascending."""
    opened = {int(record.key.split("/")[1]) for record in ledger.records(ASSIGNMENT, prefix=f"{project.name}/")}
    taken = np.union1d(items.with_gold(), np.fromiter(opened, np.int64, len(opened)))
    return np.setdiff1d(np.arange(len(items)), taken)


def import_known(ledger: Ledger, project: Project, lead: Person, ref: str) -> KnownAdded:
    """The labels of a dataset version as known answers: of items that are here already, and as items of their own."""
    lead.require("lead", "add known answers")
    rows, left_out = known_rows(ref, project.task)
    if not rows and not left_out:
        raise DataError(f"{ref} has no row with a label that could be a known answer")
    numbers = {unit: number for number, unit in enumerate(Items(project.folder).column("unit").to_pylist())}
    here = {numbers[row["unit"]]: json.loads(str(row["gold"])) for row in rows if row["unit"] in numbers}
    fresh = [row for row in rows if row["unit"] not in numbers]
    added = add_known(ledger, project, lead, here)
    n_fresh = add_part(project.folder, fresh) if fresh else 0
    if n_fresh:
        note_change(ledger, project.name)
    return KnownAdded(added.items + n_fresh, dict(Counter(left_out) + Counter(added.left_out)))


def _check(items: Items, number: int, answer: Mapping[str, list[Any]]) -> None:
    item = items[number]
    if len(answer) != 1 or not set(answer) <= set(FIELDS):
        raise UsageError(f"a known answer is one of {', '.join(FIELDS)}, got {', '.join(answer) or 'nothing'}")
    [(name, values)] = answer.items()
    expected = len(item.responses) if name == "ranks" else len(item.step_ends)
    if len(values) != expected or all(value is None for value in values):
        raise DataError(f"item {number}: {name} has {expected} values, got {values}")
