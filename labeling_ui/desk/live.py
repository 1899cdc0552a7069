"""Chats with two served models at once, blind: every reply is chosen between two, and the chosen one goes on.

Each choice is an event of its own, whose id follows from the hold and the turn: repeating it is always safe, and a
finished chat is the answer to its item. Which model stands first is drawn anew for every turn.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from labeling_ui.desk.answers import Answer, read_answer, says
from labeling_ui.desk.items import Item
from labeling_ui.desk.leases import Lease
from labeling_ui.projects.definition import TaskDefinition
from rmkit.errors import ConflictError, DataError
from rmkit.ids import messages_json, parse_messages
from rmkit.ledger import Ledger
from rmkit.types import Conversation, Event, Message

KIND, CHAT = "live_turn", "live_chat"
_EVENTS = uuid.UUID("9f0f2f0a-5a43-4d0e-8f0b-6f8b1f5f7d11")


class Reply(NamedTuple):
    """`model` is what its server calls it."""

    model: str
    text: str


Ask = Callable[[Conversation], Sequence[Reply]]  # the models' replies, in the order of the task


@dataclass(frozen=True, slots=True)
class Waiting:
    """Replies between which nobody has chosen yet, in the order of `models`; `order` is how they are shown."""

    user: str
    models: tuple[str, ...]
    replies: tuple[str, ...]
    order: tuple[int, ...]

    @property
    def shown(self) -> list[Conversation]:
        return [(Message("assistant", self.replies[position]),) for position in self.order]


@dataclass(frozen=True, slots=True)
class Chat:
    """`turns` begin with the item's own system turns; `n` choices are made; `version` is the record's."""

    turns: Conversation
    waiting: Waiting | None
    n: int
    version: int


def read_chat(ledger: Ledger, project: str, item: Item, hold: Lease) -> Chat:
    """The chat of a hold as it stands; a new one where nothing was said yet."""
    record = ledger.record(CHAT, _key(project, hold))
    if record is None:
        return Chat(tuple(turn for turn in item.prompt if turn.role == "system"), None, 0, 0)
    value, waiting = record.value, record.value["waiting"]
    shown = waiting and Waiting(
        waiting["user"], tuple(waiting["models"]), tuple(waiting["replies"]), tuple(waiting["order"])
    )
    return Chat(parse_messages(value["turns"]), shown, value["n"], record.version)


def say(ledger: Ledger, project: str, item: Item, hold: Lease, text: str, *, ask: Ask) -> Chat:
    """The chat with the two replies to a message. Raises DataError where there is nothing to answer, and what `ask`
    raises; then the chat is as it was."""
    chat = read_chat(ledger, project, item, hold)
    if not text.strip():
        raise DataError("write a message first")
    if chat.waiting is not None:
        raise DataError("choose between the two replies first")
    models, replies = zip(*ask((*chat.turns, Message("user", text))), strict=True)
    order = list(range(len(replies)))
    random.Random(f"{hold.id}/{hold.revision}/{chat.n}").shuffle(order)
    waiting = Waiting(text, models, replies, tuple(order))
    return _store(ledger, project, hold, chat, Chat(chat.turns, waiting, chat.n, 0))


def choose(
    ledger: Ledger, project: str, task: TaskDefinition, item: Item, hold: Lease, answer: Answer, *, rater: str
) -> Chat:
    """The chat gone on with the better reply, the one shown first where neither is, once the choice is on disk."""
    chat = read_chat(ledger, project, item, hold)
    if chat.waiting is None:
        raise DataError("there is nothing to choose between; write a message first")
    waiting, turns = chat.waiting, (*chat.turns, Message("user", chat.waiting.user))
    payload: dict[str, Any] = {
        "project": project,
        "task": task.id,
        "hold": hold.id,
        "revision": hold.revision,
        "turn": chat.n,
        "prompt": messages_json(turns),
        "responses": [messages_json([Message("assistant", reply)]) for reply in waiting.replies],
        "models": list(waiting.models),
        "shown_order": list(waiting.order),
        **says(task, item, waiting.order, answer),
    }
    event = Event(
        kind=KIND, actor=rater, payload=payload, id=uuid.uuid5(_EVENTS, f"{project}/{hold.id}/{hold.revision}/{chat.n}")
    )
    if stored := ledger.get([event.id]):  # a crash came between the choice and the chat: the choice stands
        payload = dict(stored[0].event.payload)
    else:
        ledger.append(event)
    ranks = payload["ranks"]
    best = next(position for position in waiting.order if ranks[position] == 0)
    after = (*turns, Message("assistant", waiting.replies[best]))
    return _store(ledger, project, hold, chat, Chat(after, None, chat.n + 1, 0))


def finished(chat: Chat) -> Answer:
    """The answer to the item: the chat has come to its end."""
    if chat.waiting is not None or not chat.n:
        raise DataError("choose between two replies at least once, then finish")
    return read_answer({"live_turns": chat.n})


def _store(ledger: Ledger, project: str, hold: Lease, before: Chat, after: Chat) -> Chat:
    waiting = after.waiting
    value = {
        "turns": messages_json(after.turns),
        "n": after.n,
        "waiting": waiting
        and {
            "user": waiting.user,
            "models": list(waiting.models),
            "replies": list(waiting.replies),
            "order": list(waiting.order),
        },
    }
    try:
        version = ledger.put(CHAT, _key(project, hold), value, expect=before.version)
    except ConflictError as error:
        raise DataError("this chat went on in another window; reload the page") from error
    return Chat(after.turns, waiting, after.n, version)


def _key(project: str, hold: Lease) -> str:
    return f"{project}/{hold.id}-{hold.revision}"


def first_message(item: Item) -> str:
    """What the item proposes to begin with: its last user turn."""
    return next((turn.content for turn in reversed(item.prompt) if turn.role == "user"), "")
