"""The webhooks of projects: addresses, the events that each one wants, and their secrets.

A webhook is a ledger record without its secret: that follows from the webhook's id and a key of this installation
(`$RMKIT_HOME/webhook.key`, readable by its owner alone), so that no database, log or backup of the ledger holds it. It
is shown once, when the webhook is made.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from labeling_ui.hooks.address import check_url
from labeling_ui.projects.people import Person
from rmkit import paths
from rmkit.errors import StoreError, UsageError, unknown
from rmkit.ledger import Ledger

KIND, STATE = "webhook", "webhook_state"
EventType = Literal["answer.submitted", "answer.returned", "answer.accepted", "project.completed"]
EVENTS: tuple[EventType, ...] = get_args(EventType)
MOST = 10  # a project
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Webhook:
    """`id` is random; `events` are what it is told of."""

    id: str
    project: str
    url: str
    events: tuple[EventType, ...]
    created_by: str

    @property
    def key(self) -> str:
        return f"{self.project}/{self.id}"


@dataclass(frozen=True, slots=True)
class State:
    """How far a webhook's deliveries are: everything up to `seq` of the ledger has been told or is none of its events.

    `due` is a delivery that follows from no single event and must be told first. `tries` counts failures in a row, the
    next try is not before `next_try`; `until` is when the claim of `sender` ends (Unix seconds). `is_stopped`: nothing
    is sent until a lead resumes it. `was_complete`: the project's end has been told.
    """

    seq: int
    due: Mapping[str, Any] | None = None
    tries: int = 0
    next_try: float = 0.0
    delivered: int = 0
    error: str = ""
    is_stopped: bool = False
    was_complete: bool = False
    sender: str = ""
    until: float = 0.0


def add_webhook(
    ledger: Ledger,
    lead: Person,
    project: str,
    *,
    url: str,
    events: Sequence[str] = EVENTS,
    allowed: Collection[str] = (),
    was_complete: bool = False,
) -> tuple[Webhook, str]:
    """A new webhook, told of what happens from now on, and its secret, shown this once.

    Raises ForbiddenError for an annotator, UsageError for an event that there is not, DataError for an address where
    nothing may be sent (`allowed` hosts aside).
    """
    lead.require("lead", "add webhooks")
    wanted = tuple(one for one in EVENTS if one in events)
    for one in events:
        if one not in EVENTS:
            raise UsageError(unknown("event", one, EVENTS))
    if not wanted:
        raise UsageError(f"a webhook needs at least one event: {', '.join(EVENTS)}")
    if len(list(webhooks(ledger, project))) >= MOST:
        raise UsageError(f"{project} has {MOST} webhooks, the most there may be; remove one first")
    check_url(url, allowed=allowed)
    hook = Webhook(uuid.uuid4().hex, project, url, wanted, lead.name)
    shown = "whsec_" + base64.b64encode(secret_of(hook.id)).decode()
    put_state(ledger, hook, State(ledger.last_seq(), was_complete=was_complete), expect=0)
    ledger.put(KIND, hook.key, {name: value for name, value in asdict(hook).items() if name != "id"}, expect=0)
    return hook, shown


def webhooks(ledger: Ledger, project: str | None = None) -> Iterator[Webhook]:
    """Those of a project, or all."""
    for record in ledger.records(KIND, prefix=f"{project}/" if project else ""):
        if record.value:
            values = {**record.value, "events": tuple(record.value["events"])}
            yield Webhook(id=record.key.rpartition("/")[2], **values)


def webhook(ledger: Ledger, project: str, id: str) -> Webhook:
    """Raises UsageError where there is none."""
    for hook in webhooks(ledger, project):
        if hook.id == id:
            return hook
    raise UsageError(f"{project} has no webhook {id}")


def remove_webhook(ledger: Ledger, lead: Person, project: str, id: str) -> None:
    """Nothing is sent any more, what was waiting included."""
    lead.require("lead", "remove webhooks")
    ledger.put(KIND, webhook(ledger, project, id).key, {})


def resume_webhook(ledger: Ledger, lead: Person, project: str, id: str) -> None:
    """Try again now, from what is waiting on."""
    lead.require("lead", "resume webhooks")
    hook = webhook(ledger, project, id)
    state, version = state_of(ledger, hook)
    put_state(ledger, hook, replace(state, tries=0, next_try=0.0, is_stopped=False), expect=version)


def state_of(ledger: Ledger, hook: Webhook) -> tuple[State, int]:
    """The state and its version."""
    record = ledger.record(STATE, hook.key)
    if record is None:
        raise StoreError(f"the state of webhook {hook.id} is missing; remove it and add it again")
    return State(**record.value), record.version


def put_state(ledger: Ledger, hook: Webhook, state: State, *, expect: int) -> int:
    """Its new version. Raises ConflictError where somebody else has changed it."""
    return ledger.put(STATE, hook.key, asdict(state), expect=expect)


def is_complete(progress: Mapping[str, int]) -> bool:
    """Whether every item of a project (`Desk.progress`) has its answers, or is set aside."""
    return 0 < progress["items"] <= progress["complete"] + progress["set_aside"]


def secret_of(id: str) -> bytes:
    return hmac.new(_key(), f"webhook {id}".encode(), hashlib.sha256).digest()


def _key() -> bytes:
    """This installation's key, made at first use; whoever else makes it at the same moment has the same one."""
    target = paths.home() / "webhook.key"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, target)
        finally:
            draft.unlink()
    key = target.read_bytes()
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{target} is damaged; bring it back from a backup, or remove it and make all webhooks anew")
    return key
