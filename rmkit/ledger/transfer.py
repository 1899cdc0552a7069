"""Whole ledgers: a consistent copy while others write, and carrying one from a back end to the other.

The copy is always an SQLite ledger file, whatever the back end: one portable format that needs nothing but the standard
library to be read, and so also the way from SQLite to PostgreSQL and back. Seqs and versions of records stay the same.
"""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import islice
from pathlib import Path

from rmkit.errors import StoreError
from rmkit.ledger import Ledger
from rmkit.ledger.sqlite import SqliteLedger

CHUNK = 5000  # events, or records, per call


def snapshot(ledger: Ledger, path: Path) -> None:
    """Write the ledger's present state to a new SQLite file; writing goes on meanwhile."""
    if isinstance(ledger, SqliteLedger):
        _backed_up(Path(ledger.where), path)
    else:
        with SqliteLedger(path, wait_s=30.0) as copy:
            copy_ledger(ledger, copy)
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:  # one plain file instead of three
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {path}: {error}; free disk space, then repeat") from error
    path.with_name(path.name + "-waiting").unlink(missing_ok=True)


def _backed_up(source: Path, target: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
            old.backup(new)  # in one step: a read transaction, which in WAL mode holds up no writer
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot copy the ledger {source} to {target}: {error}; free disk space, then repeat"
        ) from error


def copy_ledger(source: Ledger, target: Ledger) -> int:
    """Bring `target`, empty or holding an earlier state of `source`, level with it; the number of events it then has.

    A repeat after an interruption goes on. Raises StoreError, having stored nothing, where `target` holds other events
    or records of other kinds, under other keys or of higher versions.
    """
    end, present = source.last_seq(), target.last_seq()
    pairs = zip(source.events(limit=present), target.events(limit=present), strict=False)
    if present > end or any(old != new for old, new in pairs):
        raise StoreError(f"{target.where} holds events that {source.where} does not; use an empty ledger")
    _require_older_records(source, target)
    events = source.events(present, limit=end - present)
    while chunk := list(islice(events, CHUNK)):
        target.append_many([recorded.event for recorded in chunk])
    for kind in source.record_kinds():
        records = source.records(kind)
        while page := list(islice(records, CHUNK)):
            target.put_many(kind, page)
    return end


def _require_older_records(source: Ledger, target: Ledger) -> None:
    for kind in target.record_kinds():
        for record in target.records(kind):
            now = source.record(kind, record.key)
            if now is None or record.version > now.version or (record.version == now.version and record != now):
                raise StoreError(
                    f"{target.where} holds the {kind} record {record.key!r} in a state that {source.where} does not "
                    "have; use an empty ledger"
                )
