"""Sends what happens in projects to their webhooks; the ledger is the outbox, so no restart loses or doubles anything.

A delivery's id follows from the webhook and the ledger's event. How far a webhook has got is a record, written after
each delivery: who is killed in between sends that one again, under the same id, by which the receiver knows it. One
server sends at a time: it holds a claim on the webhook, which ends by itself.

Signed as Standard Webhooks does (standardwebhooks.com): base64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY")).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx

from labeling_ui.background import repeated
from labeling_ui.desk.desk import is_undo
from labeling_ui.hooks.address import TIMEOUT_S, post
from labeling_ui.hooks.webhooks import State, Webhook, is_complete, put_state, secret_of, state_of, webhooks
from labeling_ui.projects.reviews import KIND as REVIEW
from rmkit.errors import ConflictError, DataError, RmkitError
from rmkit.ledger import Ledger, Recorded
from warehouse.events.payloads import KINDS

log = logging.getLogger(__name__)

EVERY_S = 1.0
CLAIM_S = TIMEOUT_S + 5
TURN_S = 5.0  # then the other webhooks have their turn
MAX_TRIES = 20  # about half a day
LONGEST_WAIT_S = 3600.0
AT_ONCE = 8
_IDS = uuid.UUID("8f7d9f0c-57f5-4c38-9d0c-0b5b0e8a4c11")

Progress = Callable[[str], Mapping[str, int]]


class Sender:
    """All webhooks of a ledger; `progress` is a project's (`Desk.progress`), `allowed` are private hosts."""

    def __init__(self, ledger: Ledger, progress: Progress, *, allowed: Collection[str] = ()) -> None:
        self._ledger, self._progress, self._allowed = ledger, progress, allowed
        self._name = uuid.uuid4().hex
        self._settled: dict[str, int] = {}  # per webhook: up to here of the ledger nothing is left to tell

    def turn(self) -> None:
        """One look at every webhook."""
        if hooks := list(webhooks(self._ledger)):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._one, hooks))

    def _one(self, hook: Webhook) -> None:
        try:
            self._send_due(hook)
        except ConflictError:
            return  # another server has it, or a lead has changed it: the next turn sees how it is
        except (RmkitError, OSError) as error:
            log.warning("webhook %s of %s: %s", hook.id, hook.project, error)

    def _send_due(self, hook: Webhook) -> None:
        state, version = state_of(self._ledger, hook)
        now, last, give_up = time.time(), self._ledger.last_seq(), time.monotonic() + TURN_S
        if state.is_stopped or now < state.next_try or (state.sender != self._name and now < state.until):
            return
        state = replace(state, error="")  # of the try before; from here on it is this turn's
        if state.due is not None:
            state, version = self._tell(hook, state, version, state.due, seq=state.seq)
        elif last == self._settled.get(hook.id):
            return
        for recorded in self._ledger.events(max(state.seq, self._settled.get(hook.id, 0)), kinds=(*KINDS, REVIEW)):
            if state.error or time.monotonic() > give_up:
                return
            if (delivery := _delivery(hook, recorded)) is not None:
                state, version = self._tell(hook, state, version, delivery, seq=recorded.seq)
        if not state.error and "project.completed" in hook.events:
            state = self._tell_end(hook, state, version)
        if not state.error:
            self._settled[hook.id] = last

    def _tell_end(self, hook: Webhook, state: State, version: int) -> State:
        """That every item has its answers, once; again where more came to be wanted and then were given."""
        done = self._progress(hook.project)
        if is_complete(done) == state.was_complete:
            return state
        if state.was_complete:
            state = replace(state, was_complete=False)
            put_state(self._ledger, hook, state, expect=version)
            return state
        id = uuid.uuid5(_IDS, f"{hook.id}/completed/{version}")
        values = {name: done[name] for name in ("items", "answered", "complete", "set_aside")}
        end = _body(id, "project.completed", hook.project, datetime.now(UTC), values)
        return self._tell(hook, replace(state, due=end), version, end, seq=state.seq)[0]

    def _tell(
        self, hook: Webhook, state: State, version: int, delivery: Mapping[str, Any], *, seq: int
    ) -> tuple[State, int]:
        """The state after a try, written, and its version; it has an `error` where the try failed.

        The claim is written first: what is sent is sent by the one who holds it, and the end of a project (`due`) keeps
        its id over a restart.
        """
        state = replace(state, sender=self._name, until=time.time() + CLAIM_S)
        version = put_state(self._ledger, hook, state, expect=version)
        error = self._sent(hook, delivery)
        if error is None:
            was_complete = state.was_complete or state.due is not None
            state = replace(state, seq=seq, due=None, was_complete=was_complete, delivered=state.delivered + 1)
            state = replace(state, tries=0, next_try=0.0, error="", until=0.0)
        else:
            state = _failed(state, error)
        return state, put_state(self._ledger, hook, state, expect=version)

    def _sent(self, hook: Webhook, delivery: Mapping[str, Any]) -> str | None:
        """None once the receiver has it, else why not."""
        body = json.dumps(delivery, ensure_ascii=False).encode()
        headers = signed(secret_of(hook.id), str(delivery["id"]), body, at=int(time.time()))
        try:
            status = post(hook.url, body, headers, allowed=self._allowed)
        except (httpx.HTTPError, DataError) as error:
            return str(error) if isinstance(error, DataError) else f"no answer: {type(error).__name__}"
        return None if 200 <= status < 300 else f"answered with status {status}"


def signed(secret: bytes, id: str, body: bytes, *, at: int) -> dict[str, str]:
    """The headers of a delivery; `at` is in Unix seconds."""
    signature = hmac.new(secret, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "rmkit-studio",
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _failed(state: State, error: str) -> State:
    tries = state.tries + 1
    wait_s = min(2.0 ** min(tries, 20), LONGEST_WAIT_S) * random.uniform(0.75, 1.0)
    is_stopped = tries >= MAX_TRIES or error.endswith("status 410")  # gone
    return replace(
        state, tries=tries, next_try=time.time() + wait_s, error=error[:200], is_stopped=is_stopped, until=0.0
    )


def _delivery(hook: Webhook, recorded: Recorded) -> dict[str, Any] | None:
    """What the webhook is told of an event, None for nothing."""
    event, payload = recorded.event, recorded.event.payload
    if event.kind == REVIEW:
        kind = f"answer.{payload['decision']}"
        project, values = payload["project"], {name: payload[name] for name in ("event", "rater", "comment", "lead")}
    else:
        extra = payload.get("extra") or {}
        project, kind = extra.get("project"), "answer.submitted"
        if is_undo(event):
            return None  # what the person says instead comes as an event of its own
        rest = {name: value for name, value in payload.items() if name not in ("extra", "unit")}
        values = {"event": str(event.id), "rater": payload.get("rater") or event.actor, "unit": payload.get("unit")}
        values |= {"item": extra.get("item"), "slot": extra.get("slot"), "answer": rest}
    if project != hook.project or kind not in hook.events:
        return None
    return _body(uuid.uuid5(_IDS, f"{hook.id}/{event.id}"), kind, hook.project, event.time, values)


def _body(id: uuid.UUID, kind: str, project: str, at: datetime, values: Mapping[str, Any]) -> dict[str, Any]:
    moment = at.isoformat(timespec="seconds")
    return {"id": str(id), "type": kind, "project": project, "timestamp": moment, "data": dict(values)}


def sending(sender: Sender, *, every_s: float = EVERY_S) -> AbstractContextManager[None]:
    """While the block runs, webhooks are told of what happens."""

    def turn() -> None:
        try:
            sender.turn()
        except (RmkitError, OSError) as error:
            log.warning("webhooks: %s", error)

    return repeated(turn, every_s=every_s, name="label-webhooks")
