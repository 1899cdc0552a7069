"""Every reward goes to the ledger, behind the answer: `reward` events, written in groups by a thread of their own.

One event per request:

    request_id, route, client, model, fingerprint, sample, queued_ms, total_ms
    signal, step, policy_version    where there are any
    items       prompt (content hash), source, and per completion: response (content hash), chars, value or null (the
                model's raw number), unscored, truncated; a comparison has p_first instead. Under a signal also `group`,
                `row` (what the trainer's dataset says of the prompt) and `rewards`, per completion: components, raw
                (their mix), reward (shaped), columns, unscored (why there is no reward)

Hashes are the warehouse's own, so rewards join with its rows. Texts, those of rows and columns too, are written only
where `log_text` asks for them; what reasons quote is cut out. `sample` is the share of requests that are logged, chosen
by a hash of the request id, so that counts can be scaled up. A killed process loses the last FLUSH_S of the log. While
the ledger cannot be written, events wait on disk (`reward_spill`) and it is asked again every few seconds; what neither
disk nor memory can hold is dropped, counted in `lost`, and said.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rmkit.errors import DataError, StoreError
from rmkit.ids import content_hash, messages_json
from rmkit.ledger import Ledger
from rmkit.ledger.rows import encode
from rmkit.paths import home
from rmkit.serve.http.wire import number
from rmkit.serve.queue.batcher import Answer, Call
from rmkit.serve.rewards import reward_spill
from rmkit.serve.rewards.request import Reward, RewardItem, RewardRequest
from rmkit.serve.rewards.reward_spill import Spill
from rmkit.signal.columns import plain
from rmkit.types import Candidates, Comparison, Event, Score

log = logging.getLogger(__name__)

KIND = "reward"
FLUSH_S = 0.25
GROUP = 500
RETRY_S = (0.5, 5.0)  # between two tries of a ledger that is away: the first and the longest wait
PATIENCE_S = 10.0  # for the answer to one append
BUSY_S = 1.0  # for rewards that wait on disk, before new ones are taken from the queue again
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}")


class Served(NamedTuple):
    """One answered request on its way to the ledger, with what a signal made of it."""

    name: str
    items: Sequence[Candidates]
    call: Call
    answer: Answer[Any]
    request: RewardRequest | None = None
    rewards: Sequence[Sequence[Reward]] = ()


class RewardLog:
    """Takes answered requests without ever waiting; `close` writes what is left, or leaves it on disk.

    `lost` counts requests that are in no ledger and no file; `waiting` those that are not in the ledger yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        sample: float = 1.0,
        text: bool = False,
        room: int = 20_000,
        folder: Path | None = None,
        folder_bytes: int = 2**30,
    ) -> None:
        """`room` requests are held in memory, `folder_bytes` of events in `folder` (default: `reward-log` at home)."""
        self._ledger = ledger
        self._sample = sample
        self._text = text
        self._folder = folder or home() / "reward-log"
        self._folder_bytes = folder_bytes
        self._queue: queue.Queue[Served | None] = queue.Queue(room)
        self._closing = threading.Event()
        self._spills = deque(reward_spill.abandoned(self._folder, ledger.where))  # the last may be written to
        self._own: Spill | None = None
        self._attempt: _Attempt | None = None
        self._away_since: float | None = None
        self._retry_at, self._retry_s = 0.0, RETRY_S[0]
        self._added = self._settled = 0  # requests taken; those of them that are in the ledger, or lost by the thread
        self._dropped = self._lost = self._lost_told = 0  # by `add`, by the thread, said so far
        self._thread = threading.Thread(target=self._run, name="reward-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self._dropped + self._lost

    @property
    def waiting(self) -> int:
        """Requests that are not in the ledger yet, those of earlier processes left out."""
        return self._added - self._settled

    def add(self, served: Served) -> None:
        """Log a request, if the sample has it."""
        if not sampled(served.call.request_id, self._sample):
            return
        self._added += 1  # before the thread can settle it
        try:
            self._queue.put_nowait(served)
        except queue.Full:
            self._added -= 1
            self._dropped += 1

    def close(self) -> None:
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._group()
            events = [event for served in group for event in self._events(served)]
            del group  # the texts of a whole group, while the ledger may be waited for
            while events and not self._stored(events):
                self._tell_losses()  # the queue fills up meanwhile
                if self._closing.wait(RETRY_S[0]):
                    self._lost += len(events)
                    self._settled += len(events)
                    break
                self._empty_spills(until=time.monotonic() + BUSY_S)  # which may make room on the disk
            self._empty_spills(until=time.monotonic() + (BUSY_S if going else PATIENCE_S), last=not going)
            self._tell_losses()
        for spill in self._spills:
            if spill.bytes:
                log.error("rewards wait in %s; the next service that logs to this ledger writes them", spill.path)
            spill.close()

    def _group(self) -> tuple[list[Served], bool]:
        """Waits for one request, until the ledger is asked again where rewards wait on disk, then FLUSH_S for company;
        False at the end."""
        group: list[Served] = []
        until = max(time.monotonic() + FLUSH_S, self._retry_at) if self._spills else None
        while len(group) < GROUP:
            try:
                served = self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if served is None:
                return group, False
            if not group:
                until = time.monotonic() + FLUSH_S
            group.append(served)
        return group, True

    def _events(self, served: Served) -> list[Event]:
        try:
            event = event_of(served, sample=self._sample, text=self._text)
            encode(event)  # what the ledger would refuse must not spoil the group that it is written with
            return [event]
        except Exception as error:  # a text that is no UTF-8 has no hash; and the thread must outlive whatever comes
            log.warning("a reward was not logged: %s", type(error).__name__)
            self._lost += 1
            self._settled += 1
            return []

    def _stored(self, events: Sequence[Event]) -> bool:
        """Whether the events are in the ledger now, or on disk behind those that wait there."""
        if not self._spills and self._appended(events):
            self._settled += len(events)
            return True
        try:
            if self._own is None:
                self._own = reward_spill.new(self._folder, self._ledger.where)
                self._spills.append(self._own)
            if self._own.bytes > self._folder_bytes:
                raise OSError(f"{self._folder_bytes} bytes wait there already")
            self._own.put([encode(event) for event in events])
        except OSError as error:
            log.error("%d rewards cannot be kept in %s: %s", len(events), self._folder, error)
            return False
        return True

    def _empty_spills(self, *, until: float, last: bool = False) -> None:
        """Write what waits on disk, oldest first, until the ledger refuses; only when it is due, but for a last try."""
        while self._spills and time.monotonic() < until and (last or time.monotonic() >= self._retry_at):
            spill = self._spills[0]
            events, place = spill.next_events(GROUP)
            if events and not self._appended(events):
                return
            spill.forget(place)
            self._lost += spill.unreadable
            if spill is self._own:
                self._settled += len(events) + spill.unreadable
            if not spill.bytes:
                spill.close()
                self._spills.popleft()
                self._own = None if spill is self._own else self._own

    def _appended(self, events: Sequence[Event]) -> bool:
        """Whether the ledger has the events. After PATIENCE_S without an answer it counts as away: they may be appended
        again, which changes nothing where the first time came through."""
        if self._attempt is None or self._attempt.done.is_set():
            self._attempt = _Attempt(self._ledger, events)
            self._attempt.done.wait(PATIENCE_S)
        attempt, failure = self._attempt, self._attempt.failure
        if attempt.events is not events or not attempt.done.is_set():
            failure = StoreError(f"no answer for {PATIENCE_S:g} s")
        if isinstance(failure, DataError):  # one of them cannot be stored: the others can
            if len(events) == 1:
                log.error("a reward was not logged: %s", failure)
                self._lost += 1
                return True
            half = len(events) // 2
            return self._appended(events[:half]) and self._appended(events[half:])
        self._tell(failure)
        return failure is None

    def _tell(self, failure: Exception | None) -> None:
        """Say when the ledger goes and comes back, and when it is asked next."""
        now = time.monotonic()
        if failure is not None:
            if self._away_since is None:
                self._away_since = now
                log.error("the reward log's ledger is away, rewards wait in %s: %s", self._folder, failure)
            self._retry_at, self._retry_s = now + self._retry_s, min(2 * self._retry_s, RETRY_S[1])
        elif self._away_since is not None:
            log.warning(
                "the reward log's ledger is back after %.0f s; what waits on disk goes there now",
                now - self._away_since,
            )
            self._away_since, self._retry_at, self._retry_s = None, 0.0, RETRY_S[0]

    def _tell_losses(self) -> None:
        if self.lost > self._lost_told:
            log.error("%d rewards were not logged, %d in all", self.lost - self._lost_told, self.lost)
            self._lost_told = self.lost


class _Attempt(threading.Thread):
    """One append in a thread of its own: a server that is gone without a word may be waited for half an hour."""

    def __init__(self, ledger: Ledger, events: Sequence[Event]) -> None:
        super().__init__(name="reward-log-append", daemon=True)
        self.ledger, self.events = ledger, events
        self.failure: Exception | None = None
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self.ledger.append_many(self.events)
        except Exception as error:
            self.failure = error
        self.done.set()


def sampled(request_id: str, share: float) -> bool:
    """Whether a request belongs to the sample: the same answer in every process."""
    if share >= 1:
        return True
    drawn = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") / 2**64
    return drawn < share


def event_of(served: Served, *, sample: float, text: bool) -> Event:
    """The `reward` event of one answered request. Raises DataError for a text that is not UTF-8."""
    call, answer = served.call, served.answer
    sources = call.sources or (None,) * len(served.items)
    return Event(
        kind=KIND,
        actor=f"serve {served.name}",
        payload={
            "request_id": call.request_id,
            "route": call.route,
            "client": call.client,
            "model": served.name,
            "fingerprint": answer.info.fingerprint,
            "sample": sample,
            "queued_ms": round(1000 * answer.queued_s, 2),
            "total_ms": round(1000 * answer.total_s, 2),
            **_context(served),
            "items": [
                _item(item, result, source, text=text) | _of_row(served, number, text=text)
                for number, (item, result, source) in enumerate(zip(served.items, answer.results, sources, strict=True))
            ],
        },
    )


def _context(served: Served) -> dict[str, object]:
    request = served.request
    if request is None:
        return {}
    signal = request.signal.name or "request" if request.signal else None
    values = {"signal": signal, "step": request.step, "policy_version": request.policy_version}
    return {name: value for name, value in values.items() if value is not None}


def _item(item: Candidates, result: list[Score] | Comparison, source: str | None, *, text: bool) -> dict[str, object]:
    prompt = messages_json(item.prompt)
    replies = [messages_json(completion.messages) for completion in item.completions]
    lines: list[dict[str, Any]] = [
        {"response": content_hash(reply), "chars": len(completion.text)}
        for reply, completion in zip(replies, item.completions, strict=True)
    ]
    by_key: dict[str, Any] = {"prompt": content_hash(prompt), "source": source, "completions": lines}
    if isinstance(result, Comparison):
        by_key |= {"p_first": number(result.p_first), **_reason(result.unscored)}
    else:
        for one, score in zip(lines, result, strict=True):
            one |= {"value": number(score.value), **_reason(score.unscored)}
            if score.truncated:
                one["truncated"] = True
    if text:
        by_key["prompt_text"] = prompt
        for one, reply in zip(lines, replies, strict=True):
            one["text"] = reply
    return by_key


def _of_row(served: Served, place: int, *, text: bool) -> dict[str, object]:
    """What a trainer said of an item and what its signal made of each completion, in `rewards`."""
    if served.request is None:
        return {}
    item = served.request.items[place]
    row = {name: plain(value) for name, value in item.row.items() if text or _is_numeric(value)}
    by_key: dict[str, Any] = {name: value for name, value in (("group", item.group_id), ("row", row)) if value}
    if served.request.signal is not None:
        by_key["rewards"] = [
            {"raw": number(one.raw), "reward": number(one.reward), "components": dict(one.components)}
            | {"columns": _columns(item, at, text=text)}
            | _reason(one.unscored)
            for at, one in enumerate(served.rewards[place])
        ]
    return by_key


def _columns(item: RewardItem, at: int, *, text: bool) -> dict[str, object]:
    return {name: plain(column[at]) for name, column in item.columns.items() if text or _is_numeric(column[at])}


def _is_numeric(value: Any) -> bool:
    """Whether a value tells numbers alone, which may be logged where texts may not."""
    if isinstance(value, list):
        return all(_is_numeric(one) for one in value)
    return value is None or isinstance(value, bool | int | float)


def _reason(unscored: str | None) -> dict[str, str]:
    return {} if unscored is None else {"unscored": _QUOTED.sub("...", unscored)[:200]}
