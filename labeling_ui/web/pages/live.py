"""A live chat on the annotate page: what was said, the two replies that wait for a choice, and the form for either."""

from __future__ import annotations

from typing import Any

from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease
from labeling_ui.desk.live import Chat, choose, finished, first_message, read_chat, say
from labeling_ui.projects.people import Person
from labeling_ui.web import studio
from labeling_ui.web.forms import Form, form, message_form, written
from labeling_ui.web.texts import show_conversation, show_responses
from rmkit.types import Message


class LivePart:
    """The chat of one hold, drawn; `form` and `send` are for the answer bar, `key` tells its moments apart."""

    def __init__(self, desk: Desk, person: Person, hold: Lease) -> None:
        self._desk, self._person, self._hold = desk, person, hold
        self._item = desk.items[hold.item]
        chat = read_chat(studio.current().ledger, desk.project, self._item, hold)
        self._chat, self._start = chat, "" if chat.n else first_message(self._item)
        self.key = f"{hold.id}-{hold.revision}-{chat.n}-{'choose' if chat.waiting else 'write'}"
        self.form: Form = form(desk.task, self._item, ()) if chat.waiting else message_form(self._start)

    def show(self, *, plain: bool) -> None:
        """The turns so far, and the replies to choose between."""
        said = () if self._chat.waiting is None else (Message("user", self._chat.waiting.user),)
        show_conversation((*self._chat.turns, *said), key="prompt", plain=plain)
        if self._chat.waiting is not None:
            show_responses(self._chat.waiting.shown, key="responses", plain=plain)

    def send(self, values: Any) -> Chat:
        """Write the choice, or put the message to both models. Errors as `say` and `choose`."""
        ledger, desk, hold = studio.current().ledger, self._desk, self._hold
        if self._chat.waiting is not None:
            answer = self.form.answer(values)
            return choose(ledger, desk.project, desk.task, self._item, hold, answer, rater=self._person.name)
        ask, text = studio.current().models.ask(desk.task), written(values, self._start)
        chat = say(ledger, desk.project, self._item, hold, text, ask=ask)
        desk.keep_draft(self._person, hold.id, {})
        return chat

    def finish(self) -> Any:
        """The answer to the item. Raises DataError before the first choice."""
        return finished(self._chat)

    @property
    def may_finish(self) -> bool:
        return self._chat.n > 0 and self._chat.waiting is None
