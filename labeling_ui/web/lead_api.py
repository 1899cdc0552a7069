"""The part of the REST API that is for leads: what the pages for them do, for programs.

Each operation is a row of OPERATIONS; the OpenAPI document is project of the same rows, so it says what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from labeling_ui.agreement import by_item, by_label, by_question
from labeling_ui.anchoring import anchoring
from labeling_ui.desk.items import Items
from labeling_ui.desk.suggestions import Suggestions
from labeling_ui.hooks.webhooks import EVENTS, EventType, remove_webhook, resume_webhook, state_of, webhooks
from labeling_ui.learning.suggest import suggest_by_answers, suggest_by_model
from labeling_ui.projects.definition import parse_definition, shipped_definition
from labeling_ui.projects.disputes import create_adjudication
from labeling_ui.projects.export import answer_rows
from labeling_ui.projects.groups import put_group, put_rules, read_rule, rules
from labeling_ui.projects.known import add_known, import_known
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.members import MemberRole, add_member, members, remove_member
from labeling_ui.projects.pace import pace
from labeling_ui.projects.people import Person, invite
from labeling_ui.projects.project import create_project, note_change, projects
from labeling_ui.projects.reviews import Decision, write_review
from labeling_ui.projects.revisions import revise_task, revisions
from labeling_ui.quality import Share, people_reports
from labeling_ui.web import studio
from rmkit.errors import DataError, unknown

MAX_ANSWERS = 1000  # a call
_PROJECT = "/api/projects/{project}"


class Body(BaseModel):
    """What an operation takes; a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewProject(Body):
    """`task` is a shipped task by name, or a whole definition; `data` and `gold` are dataset versions. `queued`: its
    items are what is queued for it, no row of the data."""

    name: str
    data: str
    task: str | dict[str, Any] = "pairwise"
    gold: str | None = None
    queued: bool = False


class ChangedTask(Body):
    task: dict[str, Any]
    why: str = ""


class ReviewOf(Body):
    """`event` is the answer's."""

    event: str
    decision: Decision
    comment: str = ""


class Known(Body):
    """Answers by item number, {"ranks": [0, 1]} or {"step_labels": [...]} in stored order, or those of a dataset."""

    answers: dict[int, dict[str, list[Any]]] = Field(default_factory=dict)
    dataset: str | None = None


class Membership(Body):
    person: str
    role: MemberRole | Literal["no member"] = "annotator"


class Rules(Body):
    """Replaces all rules of the project; each as `labeling_ui.projects.groups.Rule`."""

    rules: list[dict[str, Any]]


class Group(Body):
    """A group without people ends."""

    name: str
    people: list[str]


class Pause(Body):
    person: str
    paused: bool = True
    reason: str = Field(min_length=1)


class Suggested(Body):
    """One of them: a model of this home, or a project of the same kind."""

    model: str | None = None
    answers: str | None = None


class Commit(Body):
    dataset: str | None = None
    merge: bool = False


class Adjudication(Body):
    name: str | None = None


class Invitation(Body):
    name: str


class NewWebhook(Body):
    url: str
    events: list[EventType] = Field(default_factory=lambda: list(EVENTS))


class WebhookOf(Body):
    id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the API; `query` maps parameters to what they mean, `body` is None where none is taken."""

    method: Literal["GET", "POST", "PUT"]
    path: str
    summary: str
    handler: Callable[[Request, Person, Any], object]
    body: type[Body] | None = None
    query: Mapping[str, str] = field(default_factory=dict)


def call(operation: Operation, request: Request, person: Person, values: Mapping[str, Any]) -> object:
    """The answer of an operation for leads. Raises ForbiddenError for an annotator, DataError for a body that does not
    fit."""
    person.require("lead", operation.summary.lower())
    if operation.body is None:
        if values:
            raise DataError(f"this call takes no body, got key {next(iter(values))!r}")
        return operation.handler(request, person, None)
    for name in values:
        if name not in operation.body.model_fields:
            raise DataError(unknown("key", name, operation.body.model_fields))
    try:
        body = operation.body.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return operation.handler(request, person, body)


def _name(request: Request) -> str:
    return str(request.path_params["project"])


def _create(request: Request, person: Person, body: NewProject) -> object:
    task = shipped_definition(body.task) if isinstance(body.task, str) else parse_definition(body.task, where="task")
    here = studio.current()
    here.models.check(task)
    project = create_project(
        here.ledger, body.name, task=task, data=body.data, gold=body.gold, author=person.name, queued=body.queued
    )
    return {"name": project.name, "data": project.data, "items": len(Items(project.folder)), "skipped": project.skipped}


def _project(request: Request, person: Person, body: None) -> object:
    here, name = studio.current(), _name(request)
    project, desk, work = here.project(name), here.desk(name), here.work(name).frame()
    done = desk.progress()
    return {
        **{field: getattr(project, field) for field in ("name", "data", "gold", "source", "created_by")},
        "skipped": dict(project.skipped),
        "task": asdict(project.task) | {"id": project.task.id},
        "progress": done,
        "pace": asdict(pace(work, left=max(done["wanted"] - done["answered"], 0))),
        "members": members(here.ledger, name),
        "paused": desk.paused(),
        "rules": [asdict(rule) for rule in rules(here.ledger, name)],
    }


def _task_versions(request: Request, person: Person, body: None) -> object:
    here = studio.current()
    versions = revisions(here.ledger, here.project(_name(request)).name)
    return [
        {"id": one.task.id, "task": asdict(one.task), "lead": one.lead, "why": one.why, "time": one.time.isoformat()}
        for one in versions
    ]


def _change_task(request: Request, person: Person, body: ChangedTask) -> object:
    here = studio.current()
    project = here.project(_name(request))
    task = parse_definition({key: value for key, value in body.task.items() if key != "id"}, where="task")
    here.models.check(task)
    return {"id": revise_task(here.ledger, project, person, task, why=body.why).task.id}


def _answers(request: Request, person: Person, body: None) -> object:
    here, name, query = studio.current(), _name(request), request.query_params
    work = here.work(name).frame()
    for column in ("rater", "verdict"):
        if value := query.get(column):
            work = work.filter(pl.col(column) == value)
    if value := query.get("item"):
        work = work.filter(pl.col("item") == _whole(value, "item", most=2**31))
    skip = _whole(query.get("skip", "0"), "skip", most=2**31)
    limit = _whole(query.get("limit", "100"), "limit", most=MAX_ANSWERS)
    rows = list(answer_rows(here.ledger, name, here.desk(name).items, work.slice(skip, limit)))
    return {"total": work.height, "answers": rows}


def _review(request: Request, person: Person, body: ReviewOf) -> object:
    here, name = studio.current(), _name(request)
    if body.decision == "returned":
        here.desk(name).return_answer(person, body.event, comment=body.comment)
        return {"event": body.event, "decision": body.decision}
    rows = here.work(name).frame().filter(pl.col("event") == body.event)
    if rows.is_empty():
        raise DataError(f"{body.event} is no answer of {name} now")
    review = write_review(
        here.ledger,
        name,
        person,
        event=body.event,
        rater=rows["rater"][0],
        decision=body.decision,
        comment=body.comment,
    )
    return {"event": review.event, "decision": review.decision}


def _agreement(request: Request, person: Person, body: None) -> object:
    work = studio.current().work(_name(request)).frame()
    return {
        "questions": [_plain(asdict(one), same=one.same) for one in by_question(work)],
        "labels": [_plain(asdict(one), shared=one.shared) for one in by_label(work)],
        "items": [_plain(asdict(one), same=one.same) for one in by_item(work)],
    }


def _people(request: Request, person: Person, body: None) -> object:
    shares = ("gold", "repeated_same", "with_others", "first_shown", "longer")
    reports = people_reports(studio.current().work(_name(request)).frame())
    return [
        _plain(asdict(one) | {"to_look_at": one.warnings()}, **{name: getattr(one, name) for name in shares})
        for one in reports
    ]


def _plain(values: dict[str, Any], **shares: Share) -> dict[str, Any]:
    """JSON-ready: shares with their intervals, null instead of NaN."""
    for name, share in shares.items():
        values[name] = {"right": share.right, "n": share.n, "interval": list(share.interval) if share.n else None}
    return {name: _without_nan(value) for name, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def _suggestions(request: Request, person: Person, body: None) -> object:
    here, name = studio.current(), _name(request)
    effect = anchoring(here.work(name).frame())
    report = None
    if effect is not None:
        shares = ("shown", "hidden", "moved", "right_first", "right")
        report = _plain(asdict(effect), **{one: getattr(effect, one) for one in shares})
    stored = Suggestions(here.project(name).folder)
    return {"items": len(stored), "source": stored.source or None, "effect": report}


def _suggest(request: Request, person: Person, body: Suggested) -> object:
    here = studio.current()
    project = here.project(_name(request))
    if body.model is not None and body.answers is None:
        return {"items": suggest_by_model(here.ledger, project, person, body.model)}
    if body.answers is not None and body.model is None:
        return {"items": suggest_by_answers(here.ledger, project, person, body.answers)}
    raise DataError("send either model or answers")


def _known(request: Request, person: Person, body: Known) -> object:
    here = studio.current()
    project = here.project(_name(request))
    if (body.dataset is None) == (not body.answers):
        raise DataError("send either answers or dataset")
    added = (
        add_known(here.ledger, project, person, body.answers)
        if body.dataset is None
        else import_known(here.ledger, project, person, body.dataset)
    )
    return {"items": added.items, "left_out": dict(added.left_out)}


def _member(request: Request, person: Person, body: Membership) -> object:
    ledger, name = studio.current().ledger, studio.current().project(_name(request)).name
    if body.role == "no member":
        remove_member(ledger, name, body.person)
    else:
        add_member(ledger, name, body.person, role=body.role)
    return members(ledger, name)


def _rules(request: Request, person: Person, body: Rules) -> object:
    ledger, name = studio.current().ledger, studio.current().project(_name(request)).name
    try:
        new = [read_rule(one) for one in body.rules]
    except TypeError as error:
        raise DataError(f"rules: {error}") from error
    put_rules(ledger, person, name, new)
    note_change(ledger, name)
    return {"rules": len(new)}


def _group(request: Request, person: Person, body: Group) -> object:
    ledger = studio.current().ledger
    put_group(ledger, person, body.name, body.people)
    for project in projects(ledger):
        note_change(ledger, project.name)
    return {"group": body.name, "people": body.people}


def _pause(request: Request, person: Person, body: Pause) -> object:
    desk = studio.current().desk(_name(request))
    desk.pause(person, body.person, paused=body.paused, reason=body.reason)
    return desk.paused()


def _commit(request: Request, person: Person, body: Commit) -> object:
    here = studio.current()
    project = here.project(_name(request))
    version = commit_labels(here.ledger, project, person, dataset=body.dataset, merge=body.merge).version
    return {"version": version.ref, "rows": version.n_rows, "digest": version.digest}


def _adjudicate(request: Request, person: Person, body: Adjudication) -> object:
    here = studio.current()
    project = create_adjudication(here.ledger, here.project(_name(request)), person, name=body.name)
    return {"name": project.name, "items": len(Items(project.folder))}


def _invite(request: Request, person: Person, body: Invitation) -> object:
    return {"name": body.name, "token": invite(studio.current().ledger, person, body.name)}


def _whole(value: str, name: str, *, most: int) -> int:
    if not value.isdecimal() or int(value) > most:
        raise DataError(f"{name} is a whole number from 0 to {most}, got {value!r}")
    return int(value)


def _webhooks(request: Request, person: Person, body: None) -> object:
    ledger = studio.current().ledger
    rows = []
    for hook in webhooks(ledger, _name(request)):
        state = state_of(ledger, hook)[0]
        rows.append({**asdict(hook), "delivered": state.delivered, "failures": state.tries, "error": state.error})
        rows[-1] |= {"is_stopped": state.is_stopped}
    return rows


def _add_webhook(request: Request, person: Person, body: NewWebhook) -> object:
    hook, secret = studio.current().add_webhook(person, _name(request), body.url, body.events)
    return {**asdict(hook), "secret": secret}


def _remove_webhook(request: Request, person: Person, body: WebhookOf) -> object:
    remove_webhook(studio.current().ledger, person, _name(request), body.id)
    return {}


def _resume_webhook(request: Request, person: Person, body: WebhookOf) -> object:
    resume_webhook(studio.current().ledger, person, _name(request), body.id)
    return {}


_FILTERS = {
    "rater": "answers of this person",
    "verdict": "ok, skip or bad_item",
    "item": "answers to this item number",
    "skip": "leave out so many, oldest first",
    "limit": f"at most so many, up to {MAX_ANSWERS}",
}
OPERATIONS = (
    Operation("POST", "/api/projects", "Make a project", _create, NewProject),
    Operation("GET", _PROJECT, "See a project: task, progress, pace, members, rules", _project),
    Operation("GET", f"{_PROJECT}/task", "See the versions of the task", _task_versions),
    Operation("PUT", f"{_PROJECT}/task", "Change the task", _change_task, ChangedTask),
    Operation("GET", f"{_PROJECT}/answers", "See answers", _answers, query=_FILTERS),
    Operation("POST", f"{_PROJECT}/reviews", "Accept, return or comment an answer", _review, ReviewOf),
    Operation("GET", f"{_PROJECT}/agreement", "See agreement by question, label and item", _agreement),
    Operation("GET", f"{_PROJECT}/people", "See how each person works", _people),
    Operation("GET", f"{_PROJECT}/suggestions", "See what suggestions do to answers", _suggestions),
    Operation("PUT", f"{_PROJECT}/suggestions", "Suggest answers of a model or a project", _suggest, Suggested),
    Operation("POST", f"{_PROJECT}/known", "Add known answers", _known, Known),
    Operation("PUT", f"{_PROJECT}/members", "Change who takes part", _member, Membership),
    Operation("PUT", f"{_PROJECT}/rules", "Assign items to people", _rules, Rules),
    Operation("POST", f"{_PROJECT}/pause", "Pause or resume a person", _pause, Pause),
    Operation("POST", f"{_PROJECT}/commit", "Commit the labels as a dataset version", _commit, Commit),
    Operation("POST", f"{_PROJECT}/adjudicate", "Make a project of what people disagree on", _adjudicate, Adjudication),
    Operation("GET", f"{_PROJECT}/webhooks", "See webhooks and how their deliveries are", _webhooks),
    Operation("POST", f"{_PROJECT}/webhooks", "Add a webhook; its secret is shown once", _add_webhook, NewWebhook),
    Operation("POST", f"{_PROJECT}/webhooks/remove", "Remove a webhook", _remove_webhook, WebhookOf),
    Operation("POST", f"{_PROJECT}/webhooks/resume", "Try a webhook again now", _resume_webhook, WebhookOf),
    Operation("PUT", "/api/groups", "Change a group of people", _group, Group),
    Operation("POST", "/api/people", "Invite an annotator", _invite, Invitation),
)
