"""The desk: who gets which item next, and the only way in which an answer is written.

An answer is an event whose id follows from project, item, slot, person and revision: repeating a submission is always
safe, and a crash between writing the event and closing the hold is mended on the next start.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeling_ui.desk.answers import Answer, event_kind, says
from labeling_ui.desk.display_order import drawing, shown_order
from labeling_ui.desk.items import Items
from labeling_ui.desk.leases import Lease, Leases, Taken, open_now
from labeling_ui.desk.opinions import Opinion, Opinions
from labeling_ui.desk.qualification import is_admitted
from labeling_ui.desk.suggestions import NOTED, Suggesting, Suggestions, in_places
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.members import require_part
from labeling_ui.projects.people import Person
from labeling_ui.projects.reviews import Review, review_of, write_review
from rmkit.errors import ConflictError, DataError, UsageError
from rmkit.ids import content_hash
from rmkit.ledger import Ledger
from rmkit.types import Conversation, Event
from warehouse.events.payloads import KINDS, read_payload

DRAFT, PAUSE = "draft", "label_pause"
REPEAT_AFTER = 10  # own answers before one of them may come again
RETURNED_S = 14 * 86_400.0  # so long a returned answer waits for who gave it
_EVENTS = uuid.UUID("0b3d8f5c-4e0e-4d5b-9a3e-2f7a6f1f6c02")


class Desk:
    """One project's work, shared by all threads of a process."""

    def __init__(
        self,
        ledger: Ledger,
        project: str,
        *,
        task: TaskDefinition,
        items: Items,
        weights: NDArray[Any] | None = None,
        reserved: Mapping[int, frozenset[str]] | None = None,
        opinions: Opinions | None = None,
        suggestions: Suggestions | None = None,
        read_only: bool = False,
    ) -> None:
        """`weights` [n] decide what is drawn first (see `order`); None draws all items alike.

        `reserved` items go to the people they are for, first of all, and to nobody else. `opinions` are a model's, for
        who has answered; `suggestions` are shown as the task says.
        A `read_only` desk is for looking: opening it writes nothing.
        """
        self.project, self.task, self.items = project, task, items
        self._ledger = ledger
        self._lock = threading.RLock()
        self._seq = ledger.last_seq()
        self._look_again: set[str] = set()
        self._holds = Leases(ledger, project)
        self._gold = items.with_gold()
        self._reserved = dict(reserved or {})
        self._opinions = opinions
        self._suggesting = Suggesting(ledger, project, task, suggestions) if suggestions else None
        self._reserved_left: dict[str, list[int]] = {}  # what is for each person alone, the next one last
        self._active_ms: dict[str, tuple[int, float]] = {}  # of open holds, by id, and when it was said
        self._next_passed: dict[str, int] = {}  # per person, where in `Leases.passed` to look next
        self._gold_left: dict[str, list[int]] = {}  # what each person may still get, the next one last
        self._mend(store=not read_only)
        self.draw(np.ones(len(items)) if weights is None else weights)

    def draw(self, weights: NDArray[Any]) -> None:
        """Put the items not yet given out into a new order, drawn by these weights (see `order`)."""
        order, propensity = drawing(weights, seed=self.task.seed)
        with self._lock:
            fresh = ~np.isin(order, self._gold)
            self._order, self._propensity = order[fresh], propensity[fresh]
            self._first = 0
            self._last_place: dict[str, int] = {}
            self._reserved_left = {}

    # An annotator's work

    def open(self, person: Person, *, ahead: int = 1) -> list[Lease]:
        """Up to `ahead` items for this person, those held already first; empty when none is left for them.

        Raises ForbiddenError where the person has no part in the project, UsageError where they are paused or have not
        passed the task's quiz.
        """
        require_part(self._ledger, self.project, self.task, person)
        self._refuse_paused(person)
        if not is_admitted(self._ledger, self.task, person):
            raise UsageError(f"{person.name} has not passed the quiz of {self.project} yet; take it on the page")
        with self._lock:
            self._follow()
            now = time.time()
            mine = [hold for hold in self._holds.unanswered() if hold.rater == person.name and hold.until]
            mine.sort(key=lambda hold: hold.revision == 0)  # what was taken back comes first
            held = [self._renewed(hold, now) for hold in mine[:ahead]]
            while len(held) < ahead and (hold := self._next(person.name, time.time())) is not None:
                held.append(hold)
            return held

    def _renewed(self, hold: Lease, now: float) -> Lease:
        """The hold with a fresh lease where it ran out and nobody else has taken the item."""
        return hold if hold.is_open(now) else self._holds.store(replace(hold, until=now + self.task.lease_s))

    def submit(
        self, person: Person, id: str, answer: Answer, *, active_ms: int | None = None, wall_ms: int | None = None
    ) -> uuid.UUID:
        """The id of the judgment's event, once it is on disk. The same submission again gives the same id.

        An answer after the lease ran out still counts, unless someone else has the item by then. No time is longer than
        the hold is old by this server's clock, and none of work longer than the one on the wall. Raises DataError where
        the answer does not fit the item, UsageError where the person does not hold it or has answered otherwise.
        """
        require_part(self._ledger, self.project, self.task, person)
        with self._lock:
            hold = self._held(person, id)
            longest = max(int(1000 * (time.time() - hold.opened)), 0)
            wall_ms = None if wall_ms is None else min(wall_ms, longest)
            active_ms = None if active_ms is None else min(active_ms, longest if wall_ms is None else wall_ms)
            event = self._event(hold, answer, active_ms=active_ms, wall_ms=wall_ms)
            closed = replace(hold, event=str(event.id), verdict=answer.verdict)
            if stored := self._ledger.get([event.id]):
                if _content(stored[0].event) != _content(event):
                    raise UsageError(f"item {hold.item} is answered already; undo it first")
                if hold.event is None:
                    self._holds.store(closed)
            else:
                self._holds.store_with(event, closed)
            self._active_ms.pop(hold.id, None)
        return event.id

    def choose_first(self, person: Person, id: str, answer: Answer) -> dict[str, Any] | None:
        """Keep the person's own first choice, and give what is suggested beside it, in shown places: None where that is
        the same, where nothing is suggested to them, and where the task shows nothing after a choice. Then submit.

        Errors as `submit`; a first choice that stands already is not changed.
        """
        require_part(self._ledger, self.project, self.task, person)
        with self._lock:
            hold = self._held(person, id)
            if self._suggesting is None or self.task.suggestions != "after":
                return None
            if not self._suggesting.wants_first(hold):
                return self.suggested(hold)
            payload = says(self.task, self.items[hold.item], hold.order, answer)
            if payload.get("verdict", "ok") != "ok":
                return None
            self._suggesting.note_first(hold, answer, payload)
            return self.suggested(hold)

    def suggested(self, hold: Lease) -> dict[str, Any] | None:
        """The suggestion that who holds this item may see by now, in shown places."""
        suggestion = None if self._suggesting is None else self._suggesting.seen(hold)
        return None if suggestion is None else in_places(suggestion.values, hold.order)

    def first_choice(self, hold: Lease) -> Answer | None:
        """What was chosen before the suggestion was seen, None where nothing was."""
        return None if self._suggesting is None else self._suggesting.first(hold)

    def note_activity(self, id: str, active_ms: int) -> None:
        """What a browser says of the time worked on an open hold so far; the answer from its page takes it up.

        Unknown ids are passed over: this is asked without an account.
        """
        with self._lock:
            if (hold := self._holds.given_out(id)) is not None and hold.event is None:
                before, _ = self._active_ms.get(hold.id, (0, 0.0))
                self._active_ms[hold.id] = max(active_ms, before), time.time()

    def activity(self, id: str, *, idle_s: float) -> int | None:
        """Milliseconds worked on the hold up to now, None where no browser said anything.

        The time since its last word counts up to `idle_s`: the answer that asks for it is a sign of life.
        """
        if id not in self._active_ms:
            return None
        active_ms, at = self._active_ms[id]
        return active_ms + int(1000 * min(max(time.time() - at, 0.0), idle_s))

    def undo(self, person: Person, id: str) -> Lease:
        """Take an answer back: the old one is superseded and the item open again for the same person."""
        require_part(self._ledger, self.project, self.task, person)
        with self._lock:
            hold = self._held(person, id)
            return self._reopen(hold, by=person.name, why="undone", held_s=self.task.lease_s)

    def _reopen(self, hold: Lease, *, by: str, why: str, held_s: float) -> Lease:
        """The hold, open again for who answered it; the answer is superseded."""
        if hold.event is None:
            raise UsageError(f"item {hold.item} has no answer to undo")
        undone = Event(
            kind="judgment",
            actor=by,
            payload={
                "unit": self.items[hold.item].unit,
                "verdict": "skip",
                "rationale": why,
                "extra": self._extra(hold),
            },
            id=_undo_id(hold.event),
            supersedes=uuid.UUID(hold.event),
        )
        now = time.time()
        until = now + held_s
        reopened = replace(hold, event=None, verdict="ok", revision=hold.revision + 1, opened=now, until=until)
        is_written = bool(self._ledger.get([undone.id]))
        return self._holds.store(reopened) if is_written else self._holds.store_with(undone, reopened)

    def return_answer(self, lead: Person, event: str, *, comment: str) -> Lease:
        """Return an answer, by its event, to who gave it: it is superseded, and the item comes first to them, with the
        comment. Nobody else gets the item for RETURNED_S.

        Raises ForbiddenError for an annotator, UsageError where the answer is no valid one of this project, or the
        comment says nothing.
        """
        lead.require("lead", "return an answer")
        with self._lock:
            self._follow()
            key = next((hold.key for hold in self._holds if hold.event == event), None)
            hold = None if key is None else self._holds.reload(key)
            if hold is None or hold.event != event:
                raise UsageError(f"{event} is no answer of {self.project} now; it may have been taken back")
            write_review(
                self._ledger,
                self.project,
                lead,
                event=event,
                rater=hold.rater,
                decision="returned",
                comment=comment,
            )
            return self._reopen(hold, by=lead.name, why=f"returned by {lead.name}", held_s=RETURNED_S)

    def returned(self, hold: Lease) -> Review | None:
        """What a lead said of the answer that this open hold had before, None where nobody did."""
        if not hold.revision:
            return None
        before = self._event_id(replace(hold, revision=hold.revision - 1))
        return review_of(self._ledger, self.project, str(before))

    def release(self, person: Person, id: str) -> None:
        """Give an item back unanswered, at once for someone else."""
        with self._lock:
            hold = self._held(person, id)
            if hold.event is None:
                self._holds.store(replace(hold, until=0.0))

    def keep_draft(self, person: Person, id: str, draft: Mapping[str, Any]) -> None:
        """Keep what is written so far (JSON-ready): it survives a lost connection and a restart, and holds the item."""
        with self._lock:
            hold = self._held(person, id)
            self._ledger.put(DRAFT, self._draft_key(hold), dict(draft))
            renewed = time.time() + self.task.lease_s
            if hold.event is None and renewed - hold.until > self.task.lease_s / 2:
                self._holds.store(replace(hold, until=renewed))

    def note_draft(self, id: str, draft: Mapping[str, Any]) -> None:
        """`keep_draft` of whoever holds it; ids that this process gave out are known to their holders alone."""
        with self._lock:
            hold = self._holds.given_out(id)
        if hold is not None:
            self.keep_draft(Person(hold.rater, "annotator"), id, draft)

    def draft(self, person: Person, id: str) -> dict[str, object]:
        """What was kept for this item, empty where nothing was."""
        record = self._ledger.record(DRAFT, self._draft_key(self._held(person, id)))
        return dict(record.value) if record else {}

    def n_answered(self, person: Person) -> int:
        """How many answers the person has given."""
        return self._holds.n_answered(person.name)

    def history(self, person: Person, *, limit: int | None = None) -> list[Lease]:
        """The person's answered holds, newest answer first."""
        with self._lock:
            return self._holds.latest_answered(person.name, limit)

    def opinion(self, person: Person, id: str) -> Opinion | None:
        """What a model thinks of an item's steps, for who has answered it; None before, after a skip, and where no
        model was asked."""
        with self._lock:
            hold = self._held(person, id)
            if self._opinions is None or hold.event is None or hold.verdict != "ok":
                return None
            return self._opinions.of(hold.item)

    def answer(self, hold: Lease) -> Mapping[str, Any]:
        """What was said, as its event holds it, in stored positions; empty where nothing was."""
        stored = self._ledger.get([uuid.UUID(hold.event)]) if hold.event else []
        return stored[0].event.payload if stored else {}

    def shown(self, hold: Lease) -> list[Conversation]:
        """The item's responses in the order in which this person sees them."""
        responses = self.items[hold.item].responses
        return [responses[position] for position in hold.order]

    # The lead's view

    def answered(self) -> list[Lease]:
        """Every hold with an answer, gold and repeats included."""
        with self._lock:
            return [hold for hold in self._holds if hold.event]

    def progress(self) -> dict[str, int]:
        """Answers wanted, given and at work now, items with all their answers and items set aside as bad.

        Skips and bad items are no answers, and an item set aside wants none. Gold and repeats are counted apart.
        """
        with self._lock:
            self._follow()
            at_work = sum(hold.counts for hold in open_now(self._holds))
            tally, n_items = self._holds.tally, len(self.items) - len(self._gold)
            set_aside = tally.set_aside(self.task.overlap)
            return {
                "items": n_items,
                "set_aside": set_aside,
                "wanted": (n_items - set_aside) * self.task.overlap,
                "answered": tally.answered,
                "at_work": at_work,
                "complete": tally.complete(self.task.overlap),
                "gold_and_repeats": tally.apart,
            }

    def _follow(self) -> None:
        """Take in what other processes have answered and undone since the last look.

        They write the event first and the hold a moment later, so each hold is read again at the look after next.
        """
        changed: set[str] = set()
        for recorded in self._ledger.events(self._seq, kinds=KINDS):
            self._seq = recorded.seq
            extra = recorded.event.payload.get("extra") or {}
            if extra.get("project") == self.project:
                key = f"{extra['item']:07d}/{extra['slot']}"
                hold = self._holds.get(key)
                if hold is None or hold.event != str(recorded.event.id):
                    changed.add(key)
        for key in changed | self._look_again:
            self._holds.reload(key)
        self._look_again = changed

    def pause(self, lead: Person, name: str, *, paused: bool = True, reason: str) -> None:
        """Give this person nothing more (or let them go on); who did it and why stays in the ledger for good."""
        lead.require("lead", "pause or resume a person")
        summary = {"project": self.project, "rater": name, "paused": paused, "reason": reason}
        self._ledger.append(Event(kind=PAUSE, actor=lead.name, payload=summary))
        self._ledger.put(PAUSE, f"{self.project}/{name}", {"paused": paused, "reason": reason})

    def paused(self) -> dict[str, str]:
        """Why each person who is paused is, by name."""
        records = self._ledger.records(PAUSE, prefix=f"{self.project}/")
        return {
            record.key.removeprefix(f"{self.project}/"): record.value["reason"]
            for record in records
            if record.value["paused"]
        }

    def _refuse_paused(self, person: Person) -> None:
        record = self._ledger.record(PAUSE, f"{self.project}/{person.name}")
        if record and record.value["paused"]:
            raise UsageError(f"you are paused in {self.project}: {record.value['reason']}; talk to your lead")

    # What comes next

    def _next(self, rater: str, now: float) -> Lease | None:
        mine = self._holds.of(rater)
        if self.task.max_items and len(mine.keys) - mine.n_apart >= self.task.max_items:
            return None
        chance = int(content_hash(f"{self.task.seed}/{rater}/{len(mine.keys)}")[:8], 16) / 2**32
        special = None
        if chance < self.task.gold_share:
            special = self._next_gold(rater, mine, now)
        elif chance < self.task.gold_share + self.task.repeat_share:
            special = self._next_repeat(rater, mine, now)
        return special or self._next_fresh(rater, mine, now)

    def _next_gold(self, rater: str, mine: Taken, now: float) -> Lease | None:
        if rater not in self._gold_left:

            def drawn(item: int) -> str:
                return content_hash(f"{self.task.seed}/{rater}/{item}")

            self._gold_left[rater] = sorted(self._gold.tolist(), key=drawn, reverse=True)
        left = self._gold_left[rater]
        while left and left[-1] in mine:  # for good: nobody else gets this person's hold on a known item
            left.pop()
        if not left:
            return None
        order = self._order_of(left[-1], int(content_hash(rater)[:8], 16))
        return self._take(left[-1], f"gold-{rater}", rater, now, order=order)

    def _next_repeat(self, rater: str, mine: Taken, now: float) -> Lease | None:
        """An own answer of a while ago, shown in the next order."""
        for key in islice(mine.keys, max(len(mine.keys) - REPEAT_AFTER, 0)):
            hold = self._holds[key]
            fits = hold.counts and hold.event and hold.verdict == "ok" and not mine.apart[hold.item]
            # who has seen what a model says of it would repeat the model, not themselves
            if fits and (self._opinions is None or hold.item not in self._opinions):
                return self._take(hold.item, f"repeat-{rater}", rater, now, order=hold.order[1:] + hold.order[:1])
        return None

    def _next_fresh(self, rater: str, mine: Taken, now: float) -> Lease | None:
        """Items whose lease ran out come first, then those that others skipped: none is left half done at the end."""
        for lapsed in self._holds.unanswered():
            if not lapsed.counts or lapsed.is_open(now) or lapsed.item in mine or self._is_reserved(lapsed.item, rater):
                continue
            if hold := self._take(
                lapsed.item, lapsed.slot, rater, now, order=lapsed.order, propensity=lapsed.propensity
            ):
                return hold
        for place in range(self._next_passed.get(rater, 0), len(self._holds.passed)):
            self._next_passed[rater] = place + 1
            passed = self._holds.passed[place]
            if passed.item in mine or self._is_reserved(passed.item, rater):
                continue
            if hold := self._take_fresh(passed.item, rater, now, passed.propensity):
                return hold
        if hold := self._next_reserved(rater, mine, now):
            return hold
        self._skip_full(now)
        # A walk from the start for every item would take as long as all that this person has answered. What lies
        # before their last place was theirs or full, and is looked at again only where nothing else is left.
        last = max(self._first, self._last_place.get(rater, 0))
        for place in chain(range(last, len(self._order)), range(self._first, last)):
            item = int(self._order[place])
            if item in mine or self._is_reserved(item, rater):
                continue
            if hold := self._take_fresh(item, rater, now, float(self._propensity[place])):
                self._last_place[rater] = place
                return hold
        return None

    def _is_reserved(self, item: int, rater: str) -> bool:
        """Whether the item is for others."""
        return item in self._reserved and rater not in self._reserved[item]

    def _next_reserved(self, rater: str, mine: Taken, now: float) -> Lease | None:
        """What is for this person by a rule. It was drawn with certainty, so it has no propensity."""
        if rater not in self._reserved_left:
            order = self._order[::-1].tolist()
            self._reserved_left[rater] = [item for item in order if rater in self._reserved.get(item, ())]
        left = self._reserved_left[rater]
        while left:
            if left[-1] not in mine and (hold := self._take_fresh(left[-1], rater, now, None)):
                return hold
            left.pop()  # theirs already, or full
        return None

    def _take_fresh(self, item: int, rater: str, now: float, propensity: float | None) -> Lease | None:
        """A free slot of the item, or None where it has none left."""
        for slot in self._free_slots(item, now):
            if hold := self._take(item, str(slot), rater, now, order=self._order_of(item, slot), propensity=propensity):
                return hold
        return None

    def _skip_full(self, now: float) -> None:
        while self._first < len(self._order) and not self._free_slots(int(self._order[self._first]), now):
            self._first += 1

    def _free_slots(self, item: int, now: float) -> list[int]:
        slots = range(self._holds.tally.slots(item, self.task.overlap))
        return [slot for slot in slots if self._holds.is_free(f"{item:07d}/{slot}", now)]

    def _order_of(self, item: int, turn: int) -> tuple[int, ...]:
        result = self.items[item]
        return shown_order(self.task.seed, result.unit, n=len(result.responses), turn=turn)

    def _take(
        self,
        item: int,
        slot: str,
        rater: str,
        now: float,
        *,
        order: tuple[int, ...],
        propensity: float | None = None,
    ) -> Lease | None:
        """The hold, or None where another process was faster."""
        hold = Lease(item, slot, rater, order, now, now + self.task.lease_s, propensity)
        try:
            return self._holds.store(hold)
        except ConflictError:
            self._holds.reload(hold.key)
            return None

    def _held(self, person: Person, id: str) -> Lease:
        hold = self._holds.by_id(id)
        if hold is None or hold.rater != person.name:
            raise UsageError(f"{person.name} does not hold {id} in {self.project} (any more); open the next item")
        return hold

    def _mend(self, *, store: bool) -> None:
        """Close the holds whose answer was written just before the process died, or is being written just now."""
        unsure = {self._event_id(hold): hold for hold in self._holds.unanswered()}
        for recorded in self._ledger.get(unsure):
            event, verdict = recorded.event, recorded.event.payload.get("verdict", "ok")
            closed = replace(unsure[event.id], event=str(event.id), verdict=verdict)
            if not store:
                self._holds.assume(closed)
                continue
            try:
                self._holds.store(closed)
            except ConflictError:  # its own process lives, and has closed it meanwhile
                self._holds.reload(closed.key)

    # Events

    def _event_id(self, hold: Lease) -> uuid.UUID:
        return uuid.uuid5(_EVENTS, f"{self.project}/{hold.key}/{hold.rater}/{hold.revision}")

    def _event(self, hold: Lease, answer: Answer, *, active_ms: int | None, wall_ms: int | None) -> Event:
        item = self.items[hold.item]
        kind = event_kind(self.task, answer)
        summary = says(self.task, item, hold.order, answer)
        noted = {} if self._suggesting is None else self._suggesting.noted(hold, summary)
        payload = {"unit": item.unit, **summary, "extra": self._extra(hold) | summary.get("extra", {}) | noted}
        if kind != "reaction":
            payload |= {"shown_order": list(hold.order) or None, "active_ms": active_ms, "wall_ms": wall_ms}
            payload |= {"is_gold": item.gold is not None, "propensity": hold.propensity}
            payload |= {"suggestion_seen": noted["seen"] if noted else self._has_seen_opinion(hold)}
        event = Event(
            kind=kind,
            actor=hold.rater,
            payload={name: value for name, value in payload.items() if value is not None},
            id=self._event_id(hold),
            supersedes=self._undo_before(hold),
        )
        if problem := read_payload(event).misfit(len(item.responses), len(item.step_ends) or None):
            raise DataError(f"answer: {problem}")
        return event

    def _has_seen_opinion(self, hold: Lease) -> bool | None:
        """Whether the person had answered before, and so has seen what the model says; None where it says nothing."""
        if self._opinions is None or hold.item not in self._opinions:
            return None
        before = [self._event_id(replace(hold, revision=revision)) for revision in range(hold.revision)]
        return any(one.event.payload.get("verdict", "ok") == "ok" for one in self._ledger.get(before))

    def _undo_before(self, hold: Lease) -> uuid.UUID | None:
        """The undo that this answer replaces, so that the newest word is the only valid one."""
        if not hold.revision:
            return None
        return _undo_id(str(self._event_id(replace(hold, revision=hold.revision - 1))))

    def _extra(self, hold: Lease) -> dict[str, object]:
        return {"project": self.project, "task": self.task.id, "item": hold.item, "slot": hold.slot}

    def _draft_key(self, hold: Lease) -> str:
        return f"{self.project}/{hold.key}/{hold.rater}"


def is_undo(event: Event) -> bool:
    """Whether it only takes an answer back."""
    return event.supersedes is not None and event.id == _undo_id(str(event.supersedes))


def _undo_id(event: str) -> uuid.UUID:
    return uuid.uuid5(_EVENTS, f"undo {event}")


def _content(event: Event) -> dict[str, object]:
    """What makes two submissions the same: neither time nor a model asked in between makes another answer."""
    apart = ("active_ms", "wall_ms", "suggestion_seen")
    content = {name: value for name, value in event.payload.items() if name not in apart}
    extra = {name: value for name, value in content.pop("extra", {}).items() if name not in NOTED}
    return {**content, "extra": extra}
