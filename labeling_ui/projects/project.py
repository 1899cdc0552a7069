"""A project: one task definition over one set of items, kept in the ledger and in `$RMKIT_HOME/label/NAME`."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.item_weights import read_weights
from labeling_ui.desk.items import Items, add_part
from labeling_ui.desk.known_answers import known_answers
from labeling_ui.desk.opinions import Opinions
from labeling_ui.desk.suggestions import Suggestions
from labeling_ui.projects.definition import TaskDefinition, parse_definition
from labeling_ui.projects.findings import queued_rows, store_findings, waiting
from labeling_ui.projects.groups import reserved
from rmkit import paths
from rmkit.errors import ConfigError, ConflictError, DataError, UsageError
from rmkit.ids import parse_messages
from rmkit.ledger import Ledger
from rmkit.user import user_name
from warehouse.events.sync import sync
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve

if TYPE_CHECKING:
    from rmkit.types import Conversation

KIND, CHANGES = "project", "project_changes"
# Each person counts once for a unit; what was shown to measure them (slots that are no numbers) is no vote.
_DISPUTED = """
SELECT u.h FROM judgment j JOIN unit u USING (unit_id) JOIN rater r USING (rater_id)
WHERE j.verdict = 'ok' AND j.ranks IS NOT NULL AND r.kind IN ('human', 'unknown')
AND (j.extra ->> '$.slot' IS NULL OR try_cast(j.extra ->> '$.slot' AS INTEGER) IS NOT NULL)
AND j.event_id NOT IN (SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL)
GROUP BY u.h HAVING count(DISTINCT j.rater_id) > 1 AND count(DISTINCT j.ranks) > 1
"""
COLUMNS = ("unit", "kind", "prompt", "responses", "step_ends", "rubric", "p", "ranks", "step_labels", "n_votes")


@dataclass(frozen=True, slots=True)
class Project:
    """`data` and `gold` are dataset versions (NAME@vN) with their digests; `skipped` counts rows by reason.

    `source` is the project whose disputes an adjudication decides: its labels go by those decisions.
    """

    name: str
    task: TaskDefinition
    data: str
    digest: str
    gold: str | None
    skipped: Mapping[str, int]
    created_by: str
    source: str | None = None

    @property
    def folder(self) -> Path:
        return paths.home() / "label" / self.name

    def desk(self, ledger: Ledger, *, read_only: bool = False) -> Desk:
        """The project's desk in this process; open one and share it."""
        items = Items(self.folder, known_answers(ledger, self.name))
        return Desk(
            ledger,
            self.name,
            task=self.task,
            items=items,
            weights=read_weights(self.folder, items),
            reserved=reserved(ledger, self.name, items),
            opinions=Opinions(self.folder),
            suggestions=Suggestions(self.folder),
            read_only=read_only,
        )


@dataclass(frozen=True, slots=True)
class Added:
    """How many queued findings became items, and how many did not fit the task, by reason."""

    items: int
    left_out: Mapping[str, int]


def create_project(
    ledger: Ledger,
    name: str,
    *,
    task: TaskDefinition,
    data: str,
    gold: str | None = None,
    author: str | None = None,
    queued: bool = False,
) -> Project:
    """A new project over the rows of a dataset version that the task can show; known answers come from `gold`.

    With `queued` its items are the findings that wait for it in the queue instead, and `data` is the version that they
    are about. `author` is who makes it (default: this machine's user). Raises UsageError where the name is taken or
    cannot be a folder, DataError where nothing fits the task.
    """
    _require_free(ledger, name)
    rows, digest, ref = _rows(data)
    known_items, known_unfit = ([], Counter[str]()) if gold is None else known_rows(gold, task)
    known = {str(row["unit"]): row for row in known_items}
    disputed = _disputed(ledger) if task.kind == "adjudication" else None
    skipped: Counter[str] = Counter()
    items: list[Mapping[str, Any]] = []
    if queued:
        items, skipped = _findings(ledger, name, task)
        if not items and not skipped:
            raise DataError(f"nothing is queued for project {name}; {waiting(ledger)}")
    for row in () if queued else rows:
        if reason := _unfit(row, task):
            skipped[reason] += 1
        elif disputed is not None and row["unit"] not in disputed:
            skipped["people do not disagree on it"] += 1
        else:
            items.append(known.pop(row["unit"]) if row["unit"] in known else _item(row, None))
    items += known.values()
    skipped += known_unfit
    if not items:
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in skipped.items())
        what = f"finding queued for {name}" if queued else f"row of {ref}"
        raise DataError(f"no {what} fits the task ({task.kind}): {reasons or 'it is empty'}")
    return store_project(ledger, Project(name, task, ref, digest, gold, dict(skipped), author or user_name()), items)


def store_project(ledger: Ledger, project: Project, items: pa.Table | Sequence[Mapping[str, Any]]) -> Project:
    """The project with its first items, written. Raises UsageError where the name is taken or cannot be a folder."""
    _require_free(ledger, project.name)
    add_part(project.folder, items)
    stored = {**asdict(project), "task": asdict(project.task)}
    del stored["name"]
    try:
        ledger.put(KIND, project.name, stored, expect=0)
    except ConflictError as error:
        raise UsageError(f"project {project.name} was created by someone else just now; name another") from error
    return project


def _require_free(ledger: Ledger, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"a project's name has letters, digits, dots, dashes and underscores, got {name!r}")
    if ledger.record(KIND, name) is not None:
        raise UsageError(f"project {name} exists; name another, or see: rmkit label")


def open_project(ledger: Ledger, name: str) -> Project:
    """The project of that name. Raises UsageError listing the ones there are."""
    record = ledger.record(KIND, name)
    if record is None:
        known = ", ".join(one.key for one in ledger.records(KIND)) or "none yet"
        raise UsageError(f"no project {name!r} (there are: {known}); make one with: rmkit label create")
    return _project(name, record.value)


def projects(ledger: Ledger) -> Iterator[Project]:
    """All projects by name, without those that cannot be read (`broken_projects`)."""
    for record in ledger.records(KIND):
        with contextlib.suppress(DataError):
            yield _project(record.key, record.value)


def broken_projects(ledger: Ledger) -> dict[str, str]:
    """Why each project that cannot be read cannot, by name: an older rmkit may have written it, or a newer one."""
    result = {}
    for record in ledger.records(KIND):
        try:
            _project(record.key, record.value)
        except DataError as error:
            result[record.key] = str(error)
    return result


def add_queued(ledger: Ledger, project: Project) -> Added:
    """Take the findings queued for this project (suspected mislabels, drift ...) in, where they fit its task."""
    items, left_out = _findings(ledger, project.name, project.task)
    added = add_part(project.folder, items)
    if added:
        note_change(ledger, project.name)
    return Added(added, dict(left_out))


def _findings(ledger: Ledger, name: str, task: TaskDefinition) -> tuple[list[Mapping[str, Any]], Counter[str]]:
    """What is queued for a project as items, and what does not fit its task, by reason. Their units are stored."""
    items: list[Mapping[str, Any]] = []
    left_out: Counter[str] = Counter()
    for row in queued_rows(ledger, name):
        if reason := _unfit({"step_ends": None, "rubric": None, **row}, task):
            left_out[reason] += 1
        else:
            items.append(row)
    if items:
        store_findings(ledger, name, author=user_name())
    return items, left_out


def _project(name: str, stored: Mapping[str, Any]) -> Project:
    try:
        task = parse_definition(stored["task"], where="its task")
        return Project(name, **{**stored, "task": task})
    except (ConfigError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"project {name} cannot be read by this rmkit: {error}") from error


def _rows(ref: str) -> tuple[list[dict[str, Any]], str, str]:
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, ref)
        version = get(connection, version_id)
        return checkout(connection, version_id, columns=COLUMNS).to_pylist(), version.digest, version.ref


def _disputed(ledger: Ledger) -> set[str]:
    """Units that people have judged differently, with what still waits in the ledger."""
    with open_warehouse() as connection:
        sync(connection, ledger)
        return {str(unit).replace("-", "") for (unit,) in connection.execute(_DISPUTED).fetchall()}


def known_rows(ref: str, task: TaskDefinition) -> tuple[list[dict[str, object]], Counter[str]]:
    """The rows of a dataset version whose label is a known answer, as items, and how many do not fit, by reason."""
    items, unfit = [], Counter[str]()
    for row in _rows(ref)[0]:
        if answer := {name: row[name] for name in ("ranks", "step_labels") if row[name]}:
            if reason := _unfit(row, task):
                unfit[f"known answer, {reason}"] += 1
            else:
                items.append(_item(row, answer))
    return items, unfit


def note_change(ledger: Ledger, name: str) -> None:
    """Say that what a running studio holds of the project (task, items, order, assignments) is old."""
    ledger.put(CHANGES, name, {})


def change_number(ledger: Ledger, name: str) -> int:
    """Rises with every change that was noted."""
    record = ledger.record(CHANGES, name)
    return record.version if record else 0


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
        case "rubric_review" | "rubric" if not row["rubric"]:
            return "no rubric"
        case "turns" if n != 1:
            return f"{n} responses, and turns are those of one"
        case "edit" | "turns" if not any(turn.role == "assistant" for turn in _first_response(row)):
            return "no assistant turn"
        case "live" if not row["prompt"]:
            return "no prompt"
        case "ratings" | "rubric" | "spans" if n < 1:
            return "no response"
        case "reaction" if n != 1:
            return f"{n} responses, and a reaction is to one"
    return None


def _first_response(row: Mapping[str, Any]) -> Conversation:
    return parse_messages(row["responses"][0]) if row["responses"] else ()


def _item(row: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, object]:
    names = ("unit", "kind", "prompt", "responses", "rubric")
    ends = row["step_ends"][0] if row["step_ends"] and len(row["responses"]) == 1 else None
    return {name: row[name] for name in names} | {"step_ends": ends, "gold": json.dumps(answer) if answer else None}
