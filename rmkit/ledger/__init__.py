"""The ledger: append-only events, which may be the only copy of human work, and small mutable records beside them.

`append` returns only after the event is on disk. Many threads and many processes may append at once; appending an event
again under its id does nothing, so whoever is unsure simply repeats. Records hold what changes (assignments, drafts,
principals, answers of paid calls); a put that names the version it has read never overwrites another's.

Open a ledger once per process and share it among threads. Two back ends share this interface: SQLite (embedded,
standard library only) and PostgreSQL (ADBC).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from rmkit.errors import UsageError
from rmkit.ledger.records import Record
from rmkit.ledger.rows import Recorded
from rmkit.ledger.sqlite import SqliteLedger
from rmkit.paths import ledger_url
from rmkit.types import Event

__all__ = ["Ledger", "Record", "Recorded", "open_ledger"]


class Ledger(Protocol):
    """`seq` counts committed events from 1 without gaps, in commit order.

    So a reader that has seen everything up to some seq misses no event committed later: cursors are safe. All methods
    may be called from any thread.
    """

    @property
    def where(self) -> str:
        """The path or the URL without its secrets, for messages."""
        ...

    def append(self, event: Event) -> int:
        """The event's seq, after the commit. The same event again gives the same seq.

        Raises DataError where its id is taken by other content or it cannot be stored as JSON, BusyError where other
        writers held the ledger too long, StoreError where it cannot be written. On an error nothing was stored,
        except that after a lost connection or a failing disk it may have been: append it again to be sure.
        """
        ...

    def append_many(self, events: Sequence[Event]) -> list[int]:
        """The seqs of the events, all committed together or not at all. Errors as `append`."""
        ...

    def events(
        self, after_seq: int = 0, *, kinds: Iterable[str] | None = None, limit: int | None = None
    ) -> Iterator[Recorded]:
        """Events with a higher seq in order, read in pages as they are consumed; at most `limit` of them."""
        ...

    def get(self, ids: Iterable[uuid.UUID]) -> list[Recorded]:
        """The events with these ids in seq order; ids that are not there are left out."""
        ...

    def counts(self, after_seq: int, up_to: int) -> dict[str, int]:
        """Number of events of each kind with after_seq < seq <= up_to."""
        ...

    def last_seq(self) -> int:
        """The highest seq committed, 0 for an empty ledger."""
        ...

    def record(self, kind: str, key: str) -> Record | None:
        """The record as it is now."""
        ...

    def records(self, kind: str, *, prefix: str = "", after: str = "", limit: int | None = None) -> Iterator[Record]:
        """Records of a kind whose keys begin with `prefix` and stand behind `after`, in order of the keys' code points.

        At most `limit` of them, read in pages as they are consumed.
        """
        ...

    def record_kinds(self) -> list[str]:
        """The kinds of which there are records, sorted."""
        ...

    def put(self, kind: str, key: str, value: Mapping[str, Any], *, expect: int | None = None) -> int:
        """Create or replace a record; its new version, after the commit.

        `expect` is the version that must be there now (0: none may be). Raises ConflictError where another is,
        DataError where key or value cannot be stored, BusyError and StoreError as `append`. On an error nothing was
        stored, except that after a lost connection or a failing disk it may have been: read the record to be sure.
        """
        ...

    def append_and_put(
        self, event: Event, kind: str, key: str, value: Mapping[str, Any], *, expect: int | None = None
    ) -> tuple[int, int]:
        """`append` and `put` in one commit, so that the disk is waited for once; the event's seq, the record's version.

        Each may be refused as it would be alone, and then the other is stored all the same.
        """
        ...

    def put_many(self, kind: str, records: Iterable[Record]) -> None:
        """Create or replace records, whatever is there, with their versions; version 0 counts on from what is there.

        They share commits, but a crash may leave some of them stored. Errors as `put`.
        """
        ...

    def close(self) -> None:
        """Commit what is queued and let go."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_ledger(url: str | Path | None = None, *, wait_s: float = 30.0, read_only: bool = False) -> Ledger:
    """The ledger at a path or a postgresql:// URL (default `$RMKIT_LEDGER`, else `$RMKIT_HOME/ledger.sqlite`).

    A new one is created; with `read_only` nothing is created or changed, an absent one reads as empty, and appends and
    puts raise StoreError. `wait_s` bounds how long an append waits for other processes before BusyError. Raises
    StoreError where it cannot be opened, is no ledger or comes from a newer rmkit, UsageError for another kind of URL.
    """
    text = str(url or ledger_url())
    if text.startswith(("postgresql://", "postgres://")):
        from rmkit.ledger.postgres import PostgresLedger

        return PostgresLedger(text, wait_s=wait_s, read_only=read_only)
    if "://" in text:
        raise UsageError(f"no ledger back end for {text.split('://')[0]}://; use a file path or postgresql://...")
    return SqliteLedger(Path(text), wait_s=wait_s, read_only=read_only)
