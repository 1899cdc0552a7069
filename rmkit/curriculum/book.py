"""The prompt book: what is known of every prompt of a run, the same for all workers, across restarts.

Observations are events of the ledger (`prompt_observation`), one per call, under an id that the caller may give: told
again after a lost answer they count once. Every worker folds the events in their order in the ledger, so all have the
same book. So that a restart need not read all of them again, records (`prompt_book`) keep what was folded so far:
prompts in 256 parts, each with the place in the ledger up to which it holds everything, and one record for the run as
a whole. A part is only ever replaced by one that holds more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmkit.config import build
from rmkit.curriculum import trackers
from rmkit.curriculum.bandits import Arm
from rmkit.curriculum.flags import FLAGS
from rmkit.curriculum.observation import Observation, observation_of
from rmkit.curriculum.proposals import Proposal, picked, picked_by_category, predicted, proposal
from rmkit.curriculum.record import BookSettings, PromptRecord
from rmkit.curriculum.run_state import RunState
from rmkit.curriculum.utilities import UTILITIES, Utility
from rmkit.errors import ConflictError, DataError, UsageError, unknown
from rmkit.ledger import Ledger
from rmkit.types import Event

KIND, RECORD, REWARD, HINTS = "prompt_observation", "prompt_book", "reward", "prompt_hints"
SETTINGS, RUN = "settings", "run"  # keys beside those of the parts, which are two hex digits
NAMESPACE = uuid.UUID("6f1f9a51-6f53-4b0f-9a5c-1f4a2a1f7b60")
BANDITS = ("", "sec", "dump")
NEW = PromptRecord()  # of a prompt that nobody told of


@dataclass(slots=True)
class _Part:
    """Some of the prompts; `upto` is the ledger's event up to which everything of theirs is in it."""

    upto: int = 0
    prompts: dict[str, PromptRecord] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"upto": self.upto, "prompts": {key: one.as_json() for key, one in self.prompts.items()}}


class PromptBook:
    """One run's book in a ledger; `name` keeps several apart. Thread-safe. Close it to keep what was folded.

    `settings` are stored when the book is new. Raises ConflictError where it was begun with other ones. With
    `read_only` nothing is written, and UsageError is raised for a book that is not there.
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str = "default",
        *,
        settings: BookSettings | None = None,
        keep_every: int = 2000,
        read_only: bool = False,
    ) -> None:
        if not name or "/" in name:
            raise UsageError(f"a book's name must not be empty and hold no slash, got {name!r}")
        self.name = name
        self._ledger, self._keep_every, self._read_only = ledger, keep_every, read_only
        self._lock = threading.RLock()
        self.settings = self._agreed(settings)
        self._touched: set[str] = set()  # parts that changed since they were kept
        self._folded = 0
        run = ledger.record(RECORD, self._key(RUN))  # before the parts: what is newer than the run says so itself
        self._run = RunState.of(run.value) if run else RunState.new(self.settings)
        self._parts = {
            key: _Part(one.value["upto"], {name: PromptRecord.of(old) for name, old in one.value["prompts"].items()})
            for one in ledger.records(RECORD, prefix=self._key(""))
            if (key := one.key.rpartition("/")[2]) not in (SETTINGS, RUN)
        }

    def observe(self, observations: Sequence[Observation], *, request_id: str = "", actor: str = "trainer") -> bool:
        """Store observations, all or none; False where this `request_id` was stored before.

        Raises ConflictError where it was stored with other observations.
        """
        if not observations:
            return False
        event = Event(
            kind=KIND,
            actor=actor,
            payload={"book": self.name, "observations": [one.as_json() for one in observations]},
            id=uuid.uuid5(NAMESPACE, f"{self.name}/{request_id}") if request_id else uuid.uuid4(),
        )
        if self._is_stored(event):
            return False
        try:
            self._ledger.append(event)
        except DataError:  # the same request came elsewhere at the same time; its clock differs
            if not self._is_stored(event):
                raise
            return False
        return True

    def propose(
        self,
        m: int,
        *,
        utility: Utility = "half",
        among: Iterable[str] | None = None,
        bandit: str = "",
        seed: int | None = None,
        skip: Sequence[str] = (),
        features: Mapping[str, ArrayLike] | None = None,
    ) -> list[Proposal]:
        """At most m prompts, best first, of those `among` or of all that the book knows.

        `bandit` (sec or dump) first draws how many of each category; `skip` names flags of prompts to leave out;
        `features` are what the utility `value` predicts from. Raises UsageError for an unknown utility, bandit or flag.
        """
        if utility not in UTILITIES:
            raise UsageError(unknown("utility", utility, UTILITIES))
        if bandit not in BANDITS:
            raise UsageError(unknown("bandit", bandit, BANDITS[1:]))
        if wrong := [flag for flag in skip if flag not in FLAGS]:
            raise UsageError(unknown("flag", wrong[0], FLAGS))
        if seed is not None and seed < 0:
            raise UsageError(f"seed must not be negative, got {seed}")
        rng = np.random.default_rng(seed)
        with self._lock:
            self.refresh()
            everything = self.prompts()
            names = sorted(everything) if among is None else dict.fromkeys(among)
            records = {name: everything.get(name, NEW) for name in names}
            if skip:
                records = {name: one for name, one in records.items() if not set(skip) & set(one.flags(self.settings))}
            values = predicted(everything, features or {}) if utility == "value" else {}
            if bandit:
                arms = self._run.arms
                result = picked_by_category(records, m, utility, rng, values=values, bandit=bandit, arms=arms)
            else:
                result = picked(records, m, utility, rng, values=values)
            proposals = [proposal(name, records[name], self.settings) for name in result]
        return [
            dataclasses.replace(one, hint=self.hint(one.prompt, one.tier)) if one.tier else one for one in proposals
        ]

    def prompts(self) -> dict[str, PromptRecord]:
        """All records by prompt, as of the last refresh."""
        with self._lock:
            return {prompt: record for part in self._parts.values() for prompt, record in part.prompts.items()}

    def record(self, prompt: str) -> PromptRecord:
        """What is known of a prompt; a new record where nothing is."""
        part = self._parts.get(_part(prompt))
        return part.prompts.get(prompt, NEW) if part else NEW

    def arms(self) -> dict[str, Arm]:
        """All categories, as of the last refresh."""
        return dict(self._run.arms)

    def columns(self, prompts: Sequence[str]) -> dict[str, list[float | None]]:
        """Columns for `rmkit.shaping`, one value per prompt named; None where nothing is known yet.

        pass_rate, baseline (SPO), prompt_count and count_bonus, and of the run quantile_lower, quantile_upper (RiskPO)
        and entropy_history.
        """
        with self._lock:
            self.refresh()
            records, run = [self.record(prompt) for prompt in prompts], self._run
            return {
                "pass_rate": [one.pass_rate if one.n else None for one in records],
                "baseline": [one.average.baseline for one in records],
                "prompt_count": [float(one.n) for one in records],
                "count_bonus": [trackers.count_bonus(one.n) for one in records],
                "quantile_lower": [run.lower.value] * len(records),
                "quantile_upper": [run.upper.value] * len(records),
                "entropy_history": [run.entropy.value] * len(records),
            }

    def set_hints(self, prompt: str, hints: Sequence[str]) -> None:
        """Keep a prompt's hints, weakest first; they replace earlier ones."""
        self._ledger.put(HINTS, self._key(prompt), {"hints": list(hints)})

    def hint(self, prompt: str, tier: int) -> str | None:
        """The hint of a tier (from 1), None where there is none."""
        stored = self._ledger.record(HINTS, self._key(prompt))
        hints = stored.value["hints"] if stored else []
        return hints[tier - 1] if 1 <= tier <= len(hints) else None

    def refresh(self) -> int:
        """Fold what is new in the ledger; the number of events that were."""
        with self._lock:
            kinds = [KIND, REWARD] if self.settings.served else [KIND]
            count = 0
            for seq, event in self._ledger.events(self._run.upto, kinds=kinds):
                self._fold(seq, self._observations(event))
                count += 1
            self._folded += count
            if self._folded >= self._keep_every:
                self.keep()
            return count

    def keep(self) -> None:
        """Write what was folded into records, so that a restart goes on from there."""
        if self._read_only:
            return
        with self._lock:
            for key in sorted(self._touched):
                self._replace(key, self._parts[key].upto, self._parts[key].as_json)
            self._replace(RUN, self._run.upto, self._run.as_json)  # last: it says that all parts hold all up to there
            self._touched.clear()
            self._folded = 0

    def close(self) -> None:
        """Fold and keep. The ledger stays open."""
        self.refresh()
        self.keep()

    def _key(self, part: str) -> str:
        return f"{self.name}/{part}"

    def _agreed(self, settings: BookSettings | None) -> BookSettings:
        """The stored settings, or the given ones of a new book."""
        stored = self._ledger.record(RECORD, self._key(SETTINGS))
        if stored is None and self._read_only:
            raise UsageError(f"there is no prompt book {self.name!r} yet; trainers begin one by what they observe")
        if stored is None:
            try:
                new = settings or BookSettings()
                self._ledger.put(RECORD, self._key(SETTINGS), dataclasses.asdict(new), expect=0)
                return new
            except ConflictError:  # another worker began it
                return self._agreed(settings)
        known = build(BookSettings, stored.value, where=f"settings of the prompt book {self.name}")
        if settings is not None and settings != known:
            raise ConflictError(f"the prompt book {self.name!r} counts with {known}; begin another one for {settings}")
        return known

    def _is_stored(self, event: Event) -> bool:
        stored = self._ledger.get([event.id])
        if stored and stored[0].event.payload != event.payload:
            raise ConflictError("this request id was used for other observations; give each request an id of its own")
        return bool(stored)

    def _observations(self, event: Event) -> list[Observation]:
        """What an event says to this book; nothing where it belongs to another one."""
        payload = event.payload
        if event.kind == KIND:
            return [observation_of(one) for one in payload["observations"]] if payload["book"] == self.name else []
        name = self.settings.served
        return [
            Observation(
                prompt=item["prompt"],
                category=item.get("source"),
                rewards=tuple(one.get("components", {}).get(name, one.get(name)) for one in item["completions"]),
            )
            for item in payload["items"]
            if "p_first" not in item  # of a comparison
        ]

    def _fold(self, seq: int, observations: Sequence[Observation]) -> None:
        parts = {key: self._parts.setdefault(key, _Part()) for key in {_part(one.prompt) for one in observations}}
        for one in observations:
            part = parts[key := _part(one.prompt)]
            if seq > part.upto:  # else another worker had kept the part behind this event
                part.prompts[one.prompt] = part.prompts.get(one.prompt, NEW).observed(one, self.settings)
                self._touched.add(key)
        for part in parts.values():
            part.upto = max(part.upto, seq)
        self._run.fold(observations, self.settings)
        self._run.upto = seq

    def _replace(self, part: str, upto: int, value: Callable[[], Mapping[str, Any]]) -> None:
        """Put a part in the ledger unless one is there that holds as much."""
        while True:
            stored = self._ledger.record(RECORD, self._key(part))
            if stored is not None and stored.value["upto"] >= upto:
                return
            try:
                self._ledger.put(RECORD, self._key(part), value(), expect=stored.version if stored else 0)
                return
            except ConflictError:  # another worker was faster; what it put may hold less or more
                continue


def _part(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:2]
