"""Leases: who has which item of a project, each a ledger record of its own, changed only by compare-and-swap.

The key is `PROJECT/ITEM/SLOT`. Numbered slots, `overlap` of them and one more for each skip, are the item's own; slots
of known items (gold) and of repeats belong to one person and do not count. An open hold ends with an answer or, after
its lease, by itself.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rmkit.ids import content_hash
from rmkit.ledger import Ledger
from rmkit.types import Event

KIND = "assignment"


@dataclass(frozen=True, slots=True)
class Lease:
    """One person's hold on one item. `event` is the answer's id once it is written; times are Unix seconds.

    `order` holds stored positions in the order shown; `revision` counts undone answers; `verdict` is the answer's (ok,
    skip or bad_item). `id` is what leaves the server: a key would say which items are there to measure people.
    """

    item: int
    slot: str
    rater: str
    order: tuple[int, ...]
    opened: float
    until: float
    propensity: float | None = None
    revision: int = 0
    event: str | None = None
    verdict: str = "ok"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def key(self) -> str:
        return f"{self.item:07d}/{self.slot}"

    @property
    def counts(self) -> bool:
        """Whether it is one of the item's own slots."""
        return self.slot.isdigit()

    def is_open(self, now: float) -> bool:
        return self.event is None and now < self.until


class Taken:
    """What one person has taken so far: the keys of their holds, oldest first, and how many of them an item has.

    `apart` counts the holds that are not in items' own slots.
    """

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.apart: Counter[int] = Counter()
        self.n_apart = 0
        self._items: Counter[int] = Counter()

    def __contains__(self, item: int) -> bool:
        return self._items[item] > 0

    def add(self, hold: Lease) -> None:
        if hold.key not in self.keys:
            self.keys[hold.key] = None
            self._count(hold, 1)

    def remove(self, hold: Lease) -> None:
        del self.keys[hold.key]
        self._count(hold, -1)

    def _count(self, hold: Lease, change: int) -> None:
        self._items[hold.item] += change
        if not hold.counts:
            self.apart[hold.item] += change
            self.n_apart += change


class Leases:
    """All holds of a project, as this process last saw them. Not locked: the desk is."""

    def __init__(self, ledger: Ledger, project: str) -> None:
        self._ledger = ledger
        self._project = project
        self._holds: dict[str, Lease] = {}
        self._versions: dict[str, int] = {}
        self._taken: defaultdict[str, Taken] = defaultdict(Taken)
        self._unanswered: dict[str, None] = {}
        self._answered_by: dict[str, dict[str, None]] = {}
        self._keys: dict[str, str] = {}  # of ids
        self.tally = Tally()
        self.passed: list[Lease] = []  # what was skipped or called bad, one hold for each time, oldest first
        stored = ledger.records(KIND, prefix=f"{project}/")
        for record in sorted(stored, key=lambda record: record.value["opened"]):
            self._remember(_hold(record.key.removeprefix(f"{project}/"), record.value), record.version)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._holds.values())

    def __getitem__(self, key: str) -> Lease:
        return self._holds[key]

    def get(self, key: str) -> Lease | None:
        return self._holds.get(key)

    def of(self, rater: str) -> Taken:
        """What this person has taken, in the same order after a restart."""
        return self._taken[rater]

    def given_out(self, id: str) -> Lease | None:
        """The hold with this id, if this process knows it."""
        key = self._keys.get(id)
        return None if key is None else self._holds[key]

    def by_id(self, id: str) -> Lease | None:
        """The hold with this id as it is in the ledger now, one that another process gave out included."""
        if id not in self._keys:
            for record in self._ledger.records(KIND, prefix=f"{self._project}/"):
                if record.value.get("id") == id:
                    return self.reload(record.key.removeprefix(f"{self._project}/"))
            return None
        hold = self.reload(self._keys[id])
        return hold if hold is not None and hold.id == id else None

    def unanswered(self) -> list[Lease]:
        """Leases without an answer, open ones and those whose lease ran out."""
        return [self._holds[key] for key in self._unanswered]

    def n_answered(self, rater: str) -> int:
        """How many of this person's holds have an answer."""
        return len(self._answered_by.get(rater, ()))

    def latest_answered(self, rater: str, n: int | None = None) -> list[Lease]:
        """This person's `n` last answered holds (None: all), the newest answer first."""
        return [self._holds[key] for key in islice(reversed(self._answered_by.get(rater, {})), n)]

    def is_free(self, key: str, now: float) -> bool:
        """Whether the slot was never taken, or its lease ran out."""
        hold = self._holds.get(key)
        return hold is None or (hold.event is None and not hold.is_open(now))

    def store(self, hold: Lease) -> Lease:
        """Write the hold over what this process last saw there. Raises ConflictError where another was faster."""
        self._remember(hold, self._ledger.put(KIND, *self._place(hold), expect=self._versions.get(hold.key, 0)))
        return hold

    def store_with(self, event: Event, hold: Lease) -> Lease:
        """`store`, and the event in the same commit. Where the hold is refused, the event is in the ledger."""
        expect = self._versions.get(hold.key, 0)
        self._remember(hold, self._ledger.append_and_put(event, KIND, *self._place(hold), expect=expect)[1])
        return hold

    def _place(self, hold: Lease) -> tuple[str, dict[str, object]]:
        """The key and the value of its record."""
        value = {name: getattr(hold, name) for name in Lease.__slots__ if name not in ("item", "slot")}
        return f"{self._project}/{hold.key}", value | {"order": list(hold.order)}

    def assume(self, hold: Lease) -> None:
        """Count the hold as this, although the ledger does not say so yet."""
        self._remember(hold, self._versions[hold.key])

    def reload(self, key: str) -> Lease | None:
        """The hold as it is in the ledger now."""
        record = self._ledger.record(KIND, f"{self._project}/{key}")
        if record is not None:
            self._remember(_hold(key, record.value), record.version)
        return self._holds.get(key)

    def _remember(self, hold: Lease, version: int) -> None:
        if (before := self._holds.get(hold.key)) is not None:
            self._forget(before, is_passed_on=before.rater != hold.rater)
        self._taken[hold.rater].add(hold)
        if hold.event is None:
            self._unanswered[hold.key] = None
        else:
            self._unanswered.pop(hold.key, None)
            self._answered_by.setdefault(hold.rater, {})[hold.key] = None
            self.tally.add(hold, 1)
            if hold.counts and hold.verdict != "ok" and (before is None or before.event != hold.event):
                self.passed.append(hold)
        self._keys[hold.id] = hold.key
        self._holds[hold.key], self._versions[hold.key] = hold, version

    def _forget(self, hold: Lease, *, is_passed_on: bool) -> None:
        self._keys.pop(hold.id, None)
        if is_passed_on:
            self._taken[hold.rater].remove(hold)
        if hold.event is not None:
            self._answered_by[hold.rater].pop(hold.key, None)
            self.tally.add(hold, -1)


class Tally:
    """How many answers there are, kept up to date one at a time: `answered` in items' own slots, `apart` elsewhere.

    A skip or a bad item is no answer: it leaves the item as many answers short as it was.
    """

    def __init__(self) -> None:
        self.answered = self.apart = 0
        self._of_item: Counter[int] = Counter()
        self._items: Counter[int] = Counter()  # how many items have so many answers
        self._skips: Counter[int] = Counter()
        self._bad: Counter[int] = Counter()

    def add(self, hold: Lease, change: int) -> None:
        """One answer more (1) or less (-1)."""
        if not hold.counts:
            self.apart += change
        elif hold.verdict != "ok":
            self._skips[hold.item] += change
            self._bad[hold.item] += change * (hold.verdict == "bad_item")
        else:
            self.answered += change
            self._items[self._of_item[hold.item]] -= 1
            self._of_item[hold.item] += change
            self._items[self._of_item[hold.item]] += 1

    def complete(self, overlap: int) -> int:
        """Items with at least so many answers."""
        return sum(items for answers, items in self._items.items() if answers >= overlap)

    def slots(self, item: int, overlap: int) -> int:
        """How many slots the item has: none once as many people as should answer it have called it bad."""
        return 0 if self._bad[item] >= overlap else overlap + self._skips[item]

    def set_aside(self, overlap: int) -> int:
        """Items that so many people called bad."""
        return sum(bad >= overlap for bad in self._bad.values())


def _hold(key: str, value: Mapping[str, Any]) -> Lease:
    item, _, slot = key.partition("/")
    return Lease(item=int(item), slot=slot, **{"id": content_hash(key), **value, "order": tuple(value["order"])})


def open_now(holds: Leases) -> list[Lease]:
    """Leases whose people are at work on them at this moment."""
    now = time.time()
    return [hold for hold in holds.unanswered() if hold.is_open(now)]
