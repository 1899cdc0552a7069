"""The embedded ledger: one SQLite file in WAL mode with full sync, standard library only.

Several processes may append. SQLite lets one write at a time; a writer that finds the file taken asks again every 0.2
to 2 ms (jittered). SQLite's own busy handler backs off to 100 ms, which starves whoever has waited longest. To be fair,
a waiting writer touches `<file>-waiting`, and a writer that sees it fresh pauses after its commit for longer than one
asking interval: so each turn goes to a random one of the k waiting, and with eight busy processes waits stay far below
the limit of `wait_s`, after which BusyError is raised.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rmkit.errors import BusyError, StoreError
from rmkit.ledger.queue import QueuedWrites, Request, WriterQueue, divided, united
from rmkit.ledger.records import (
    Put,
    Record,
    StoredRecord,
    end_of_prefix,
    plan_puts,
    records_in_pages,
)
from rmkit.ledger.rows import Outcome, Recorded, Row, decode, in_pages, plan
from rmkit.ledger.sqlite_reader import undisturbed

APPLICATION_ID = 0x726D6B6C  # "rmkl"
ASK_S = (0.0002, 0.002)
PAUSE_S = (0.002, 0.003)
FRESH_S = 0.05  # how long a touch of the waiting file counts
COLUMNS = "seq, id, kind, actor, time, payload, supersedes"
BY_ID = f"SELECT {COLUMNS} FROM event WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq"
BY_PLACE = """
    SELECT record.* FROM json_each(?) AS place JOIN record
    ON record.kind = place.value ->> 0 AND record.key = place.value ->> 1
"""

SCHEMA = "SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE type <> 'table' OR name NOT GLOB 'sqlite_stat*'"

Answer = TypeVar("Answer")

# Migration N brings user_version from N to N + 1.
MIGRATIONS = (
    (
        """CREATE TABLE event (
            seq        INTEGER PRIMARY KEY,
            id         TEXT NOT NULL UNIQUE,
            kind       TEXT NOT NULL,
            actor      TEXT NOT NULL,
            time       TEXT NOT NULL,
            payload    TEXT NOT NULL,
            supersedes TEXT
        ) STRICT""",
        "CREATE TRIGGER no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
        "CREATE TRIGGER no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    ),
    (
        """CREATE TABLE record (
            kind    TEXT NOT NULL,
            key     TEXT NOT NULL,
            version INTEGER NOT NULL,
            value   TEXT NOT NULL,
            put_id  TEXT NOT NULL,
            PRIMARY KEY (kind, key)
        ) STRICT""",
    ),
)


class SqliteLedger(QueuedWrites):
    """See `rmkit.ledger.Ledger`."""

    def __init__(self, path: Path, *, wait_s: float, read_only: bool = False) -> None:
        self.where = str(path)
        self._path = path
        self._wait_s = wait_s
        self._waiting = path.with_name(path.name + "-waiting")
        self._writer: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise StoreError(f"cannot open the ledger: {path} is not a file; move it away or set RMKIT_HOME")
        if read_only:
            self._read("SELECT 1", ())
            return
        with self._errors("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = self._connect()
        self._writing = WriterQueue(self._commit, self._drop_writer)

    def events(
        self, after_seq: int = 0, *, kinds: Iterable[str] | None = None, limit: int | None = None
    ) -> Iterator[Recorded]:
        target = None if kinds is None else json.dumps(list(kinds))
        sql = (
            f"SELECT {COLUMNS} FROM event WHERE seq > ?1 "
            "AND (?2 IS NULL OR kind IN (SELECT value FROM json_each(?2))) ORDER BY seq LIMIT ?3"
        )

        def read(after: int, size: int) -> list[Recorded]:
            return [_recorded(row) for row in self._read(sql, (after, target, size))]

        return in_pages(read, after_seq, limit)

    def get(self, ids: Iterable[uuid.UUID]) -> list[Recorded]:
        return [_recorded(row) for row in self._read(BY_ID, (json.dumps([str(i) for i in ids]),))]

    def counts(self, after_seq: int, up_to: int) -> dict[str, int]:
        sql = "SELECT kind, count(*) FROM event WHERE seq > ? AND seq <= ? GROUP BY kind ORDER BY kind"
        return dict(self._read(sql, (after_seq, up_to)))

    def last_seq(self) -> int:
        rows = self._read("SELECT coalesce(max(seq), 0) FROM event", ())
        return int(rows[0][0]) if rows else 0

    def record(self, kind: str, key: str) -> Record | None:
        rows = self._read("SELECT key, value, version FROM record WHERE kind = ? AND key = ?", (kind, key))
        return _record(rows[0]) if rows else None

    def records(self, kind: str, *, prefix: str = "", after: str = "", limit: int | None = None) -> Iterator[Record]:
        sql = (
            "SELECT key, value, version FROM record WHERE kind = ?1 AND key > ?2 AND key >= ?3 "
            "AND (?4 IS NULL OR key < ?4) ORDER BY key LIMIT ?5"
        )

        def read(behind: str, size: int) -> list[Record]:
            return [_record(row) for row in self._read(sql, (kind, behind, prefix, end_of_prefix(prefix), size))]

        return records_in_pages(read, after, limit)

    def record_kinds(self) -> list[str]:
        return [kind for (kind,) in self._read("SELECT DISTINCT kind FROM record ORDER BY kind", ())]

    def close(self) -> None:
        if self._writing is not None:
            self._writing.close()
        if self._reader is not None:
            with self._reading:
                self._reader.close()

    def _read(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows; none where the ledger is read only and absent or empty."""
        reader = self._reader
        if reader is None:
            with self._errors("read"):
                rows = self._patiently(
                    lambda: undisturbed(self._path, lambda result: self._rows(result, sql, parameters))
                )
                return rows or []
        with self._reading, self._errors("read"):
            return self._patiently(lambda: reader.execute(sql, parameters).fetchall())

    def _rows(self, connection: sqlite3.Connection, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        version = self._version(connection)
        self._check_schema(connection, version)
        if 0 < version < len(MIGRATIONS):
            raise StoreError(
                f"{self.where} was written by an older rmkit (ledger schema {version}, here: {len(MIGRATIONS)}) and a "
                "read changes nothing; bring it up to date with: rmkit sync"
            )
        return connection.execute(sql, parameters).fetchall() if version else []

    def _commit(self, requests: Sequence[Request]) -> list[Outcome]:
        """Runs in the writer's thread."""
        try:
            with self._errors("write"):
                self._writer = self._writer or self._connect()
                outcomes = self._store(self._writer, requests)
        except StoreError:
            self._drop_writer()  # after an I/O error only a new connection knows what is on disk
            raise
        self._let_others_in()
        return outcomes

    def _store(self, connection: sqlite3.Connection, requests: Sequence[Request]) -> list[Outcome]:
        appends, puts = divided(requests)
        self._patiently(lambda: self._begin(connection))
        outcomes = united(
            requests,
            _insert(connection, appends) if appends else [],
            _put(connection, puts) if puts else [],
        )
        connection.execute("COMMIT")
        return outcomes

    def _begin(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._waiting.touch()
            raise

    def _let_others_in(self) -> None:
        with contextlib.suppress(OSError):
            if time.time() - self._waiting.stat().st_mtime < FRESH_S:
                time.sleep(random.uniform(*PAUSE_S))

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        give_up = time.monotonic() + self._wait_s
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > give_up:
                    raise BusyError(
                        f"the ledger {self.where} was held by other processes for {self._wait_s:g} s; try again"
                    ) from error
            time.sleep(random.uniform(*ASK_S))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._patiently(lambda: self._prepare(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with _begun(connection, "BEGIN"):  # one snapshot: another opener may be creating the ledger at this moment
            version = self._version(connection)
            self._check_schema(connection, version)
            up_to_date = version == len(MIGRATIONS)
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        if up_to_date:
            return
        with _begun(connection, "BEGIN IMMEDIATE"):
            version = self._version(connection)  # asked again: another process may have been first
            for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise StoreError(f"{self.where} is an SQLite file but not an rmkit ledger; set RMKIT_HOME or RMKIT_LEDGER")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.where} was written by a newer rmkit (ledger schema {version}, known here: {len(MIGRATIONS)}); "
                "upgrade rmkit to open it"
            )
        return int(version)

    def _check_schema(self, connection: sqlite3.Connection, version: int) -> None:
        """Nothing but what the migrations made: a trigger or view in a file from elsewhere would run with every write
        (it can add a token of its own), and a changed table let the past be rewritten."""
        if changed := {f"{kind} {name}" for kind, name, _ in _schema(version) ^ set(connection.execute(SCHEMA))}:
            raise StoreError(
                f"{self.where} is no ledger as rmkit writes it: it has, lacks or has changed "
                f"{', '.join(sorted(changed))}; do not use it, take another backup"
            )

    def _drop_writer(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextlib.contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # the last of a damaged file's names
            raise StoreError(f"cannot {verb} the ledger {self.where}: {error}; {_advice(error)}") from error


@functools.cache
def _schema(version: int) -> frozenset[tuple[str, str, str]]:
    """What a ledger of that version holds."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in (statement for migration in MIGRATIONS[:version] for statement in migration):
            connection.execute(statement)
        return frozenset(connection.execute(SCHEMA))


def _insert(connection: sqlite3.Connection, appends: Sequence[Sequence[Row]]) -> list[Outcome]:
    ids = json.dumps([row.id for rows in appends for row in rows])
    stored = [(seq, Row(*row)) for seq, *row in connection.execute(BY_ID, (ids,))]
    (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    fresh, outcomes = plan(appends, stored, last)
    connection.executemany(f"INSERT INTO event ({COLUMNS}) VALUES (?,?,?,?,?,?,?)", [(s, *row) for s, row in fresh])
    return outcomes


def _put(connection: sqlite3.Connection, puts: Sequence[Put]) -> list[Outcome]:
    places = json.dumps(list({(put.kind, put.key): None for put in puts}))
    changed, outcomes = plan_puts(puts, [StoredRecord(*row) for row in connection.execute(BY_PLACE, (places,))])
    connection.executemany("INSERT OR REPLACE INTO record VALUES (?,?,?,?,?)", changed)
    return outcomes


@contextlib.contextmanager
def _begun(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """A transaction that is rolled back at the end unless the block has committed it."""
    connection.execute(begin)
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _recorded(row: tuple[Any, ...]) -> Recorded:
    return decode(row[0], Row(*row[1:]))


def _record(row: tuple[Any, ...]) -> Record:
    key, value, version = row
    return Record(key, json.loads(value), version)


def _advice(error: sqlite3.Error | OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is damaged: bring a backup back with rmkit restore"
    match getattr(error, "sqlite_errorcode", None) and error.sqlite_errorcode & 0xFF:  # type: ignore[union-attr]
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return "it is damaged or no ledger: bring a backup back with rmkit restore"
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return "nothing was stored: free disk space, then repeat"
        case _:
            return "check that the folder exists and is writable, or set RMKIT_HOME"
