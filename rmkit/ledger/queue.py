"""The writer queue: one thread per open ledger commits what all other threads append, as many as wait at a time.

A caller gets its answer only after the commit that holds its rows (or after nothing of it was stored). Group commit:
while one commit waits for the disk, further requests gather and share the next one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Self

from rmkit.errors import StoreError
from rmkit.ledger.records import Put, Record, encode_put
from rmkit.ledger.rows import Outcome, Row, encode
from rmkit.types import Event

Request = Sequence[Row] | Put  # events to append together, or one record to put

Waiting = tuple[Request, Future[list[int]]]

MAX_GROUP = 1000  # requests after which a commit takes no more


def divided(requests: Sequence[Request]) -> tuple[list[Sequence[Row]], list[Put]]:
    """The appends and the puts among the requests."""
    return [r for r in requests if not isinstance(r, Put)], [r for r in requests if isinstance(r, Put)]


def united(requests: Sequence[Request], appended: Sequence[Outcome], put: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of the appends and of the puts in the order of the requests."""
    appends, puts = iter(appended), iter(put)
    return [next(puts) if isinstance(request, Put) else next(appends) for request in requests]


class WriterQueue:
    """`commit` takes requests and gives one outcome each; it runs in the queue's thread only and may own a connection.

    An exception from `commit` means that nothing of the group was stored; every caller of the group gets it.
    """

    def __init__(self, commit: Callable[[Sequence[Request]], list[Outcome]], close: Callable[[], None]) -> None:
        self._commit = commit
        self._close = close
        self._waiting: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # between the check that the queue is open and the put
        self._open = True
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> list[int]:
        """The seqs of the rows, or the version of the record, once committed."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[Request]) -> list[list[int]]:
        """As `submit` for several requests, which share a commit (MAX_GROUP of them) but are answered, and refused,
        one by one.

        Raises the first refusal, after all have been answered.
        """
        waiting: list[Waiting] = [(request, Future()) for request in requests]
        with self._lock:
            # A fork copies the queue but not its thread: waiting there would never end.
            if not self._open or not self._thread.is_alive():
                raise StoreError("the ledger is closed (or was opened before a fork); open it again in this process")
            for first in range(0, len(waiting), MAX_GROUP):
                self._waiting.put(waiting[first : first + MAX_GROUP])
        wait(answer for _, answer in waiting)
        return [answer.result() for _, answer in waiting]

    def close(self) -> None:
        """Commit what waits, then end the thread."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._next_group()
            try:
                outcomes = self._commit([request for request, _ in group]) if group else []
            except Exception as error:
                outcomes = [error] * len(group)
            for (_, answer), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)
        self._close()

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """Blocks for requests, then takes what else waits; False when the queue closes after this group."""
        group: list[Waiting] = []
        more = self._waiting.get()
        while more is not None:
            group += more
            if len(group) >= MAX_GROUP or self._waiting.empty():
                return group, True
            more = self._waiting.get()
        return group, False


class QueuedWrites:
    """The writes of both back ends: all go through one queue, which a ledger that only reads does not have."""

    where: str
    _writing: WriterQueue | None = None

    def append(self, event: Event) -> int:
        return self.append_many([event])[0]

    def append_many(self, events: Sequence[Event]) -> list[int]:
        return self._queue.submit([encode(event) for event in events])

    def put(self, kind: str, key: str, value: Mapping[str, Any], *, expect: int | None = None) -> int:
        return self._queue.submit(encode_put(kind, key, value, expect=expect))[0]

    def append_and_put(
        self, event: Event, kind: str, key: str, value: Mapping[str, Any], *, expect: int | None = None
    ) -> tuple[int, int]:
        (seq,), (version,) = self._queue.submit_all([[encode(event)], encode_put(kind, key, value, expect=expect)])
        return seq, version

    def put_many(self, kind: str, records: Iterable[Record]) -> None:
        self._queue.submit_all([encode_put(kind, r.key, r.value, version=r.version or None) for r in records])

    def close(self) -> None:
        raise NotImplementedError

    @property
    def _queue(self) -> WriterQueue:
        if self._writing is None:
            raise StoreError(f"the ledger {self.where} was opened to be read only")
        return self._writing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
