"""The ledger of a team: a PostgreSQL database reached through ADBC (extra `postgres`), in a schema named rmkit.

A sequence would hand out numbers before the commit, so a reader could see 8 before 7 and its cursor would miss 7 for
good. Here the highest seq is a row of `rmkit.ledger` which each writer locks first and an append raises last: seqs have
no gaps and become visible in their order, because the lock is released only after the commit is visible. Rows travel as
one JSON parameter, so a commit costs a few round trips however many events and records it holds.

The password may stand in the URL; it never appears in a message, a log or a database.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Any

from rmkit.errors import StoreError
from rmkit.ledger.postgres_session import Session, ask, without_secrets
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

COLUMNS = 'seq, id::text, kind, actor, "time", payload, supersedes::text'
BY_ID = (
    f"SELECT {COLUMNS} FROM rmkit.event "
    # = ANY of an array takes the index; IN (SELECT ...) makes the planner scan the table.
    "WHERE id = ANY (ARRAY(SELECT value::uuid FROM json_array_elements_text($1::json))) ORDER BY seq"
)
INSERT = """
    INSERT INTO rmkit.event SELECT * FROM json_to_recordset($1::json)
    AS row(seq BIGINT, id UUID, kind TEXT, actor TEXT, "time" TIMESTAMPTZ, payload TEXT, supersedes UUID)
"""

PLACES = (
    "SELECT record.* FROM json_to_recordset($1::json) AS place (kind TEXT, key TEXT) "
    "JOIN rmkit.record USING (kind, key)"
)
PUT = """
    INSERT INTO rmkit.record SELECT * FROM json_to_recordset($1::json)
    AS row(kind TEXT, key TEXT, version BIGINT, value TEXT, put_id TEXT)
    ON CONFLICT (kind, key) DO UPDATE
    SET version = excluded.version, value = excluded.value, put_id = excluded.put_id
"""

# Migration N brings rmkit.ledger.version from N to N + 1. `payload` is TEXT because JSONB forgets key order and
# refuses NUL characters.
MIGRATIONS = (
    (
        """CREATE TABLE rmkit.event (
            seq        BIGINT PRIMARY KEY,
            id         UUID NOT NULL UNIQUE,
            kind       TEXT NOT NULL,
            actor      TEXT NOT NULL,
            "time"     TIMESTAMPTZ NOT NULL,
            payload    TEXT NOT NULL,
            supersedes UUID
        )""",
        """CREATE FUNCTION rmkit.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$""",
        """CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rmkit.event
            FOR EACH STATEMENT EXECUTE FUNCTION rmkit.refuse()""",
    ),
    (
        """CREATE TABLE rmkit.record (
            kind    TEXT COLLATE "C" NOT NULL,
            key     TEXT COLLATE "C" NOT NULL,
            version BIGINT NOT NULL,
            value   TEXT NOT NULL,
            put_id  TEXT NOT NULL,
            PRIMARY KEY (kind, key)
        )""",
    ),
)


class PostgresLedger(QueuedWrites):
    """See `rmkit.ledger.Ledger`."""

    def __init__(self, url: str, *, wait_s: float, read_only: bool = False) -> None:
        self.where = without_secrets(url)
        self._reader = Session(url, self.where, wait_s=wait_s, read_only=read_only)
        self._writer = Session(url, self.where, wait_s=wait_s)
        self._is_absent = False  # read only, and nobody has written yet
        try:
            if read_only:
                self._is_absent = self._reader.run(self._version) == 0
                return
            self._reader.run(self._migrate)
        except BaseException:
            self._reader.close()
            raise
        self._writing = WriterQueue(self._commit, self._writer.close)

    def events(
        self, after_seq: int = 0, *, kinds: Iterable[str] | None = None, limit: int | None = None
    ) -> Iterator[Recorded]:
        target = None if kinds is None else json.dumps(list(kinds))
        sql = (
            f"SELECT {COLUMNS} FROM rmkit.event WHERE seq > $1::bigint AND ($2::text IS NULL OR kind IN "
            "(SELECT value FROM json_array_elements_text($2::text::json))) ORDER BY seq LIMIT $3::bigint"
        )

        def read(after: int, size: int) -> list[Recorded]:
            return [decode(seq, row) for seq, row in map(_stored, self._read(sql, (after, target, size)))]

        return in_pages(read, after_seq, limit)

    def get(self, ids: Iterable[uuid.UUID]) -> list[Recorded]:
        rows = self._read(BY_ID, (json.dumps([str(i) for i in ids]),))
        return [decode(seq, row) for seq, row in map(_stored, rows)]

    def counts(self, after_seq: int, up_to: int) -> dict[str, int]:
        sql = (
            "SELECT kind, count(*) FROM rmkit.event WHERE seq > $1::bigint AND seq <= $2::bigint "
            'GROUP BY kind ORDER BY kind COLLATE "C"'
        )
        return dict(self._read(sql, (after_seq, up_to)))

    def last_seq(self) -> int:
        rows = self._read("SELECT last_seq FROM rmkit.ledger", ())
        return int(rows[0][0]) if rows else 0

    def record(self, kind: str, key: str) -> Record | None:
        sql = "SELECT key, value, version FROM rmkit.record WHERE kind = $1 AND key = $2"
        rows = self._read(sql, (kind, key))
        return _record(rows[0]) if rows else None

    def records(self, kind: str, *, prefix: str = "", after: str = "", limit: int | None = None) -> Iterator[Record]:
        sql = (
            "SELECT key, value, version FROM rmkit.record WHERE kind = $1 AND key > $2 AND key >= $3 "
            "AND ($4::text IS NULL OR key < $4::text) ORDER BY key LIMIT $5::bigint"
        )

        def read(behind: str, size: int) -> list[Record]:
            return [_record(row) for row in self._read(sql, (kind, behind, prefix, end_of_prefix(prefix), size))]

        return records_in_pages(read, after, limit)

    def record_kinds(self) -> list[str]:
        return [kind for (kind,) in self._read("SELECT DISTINCT kind FROM rmkit.record ORDER BY kind", ())]

    def close(self) -> None:
        if self._writing is not None:
            self._writing.close()
        self._reader.close()

    def _read(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return [] if self._is_absent else self._reader.run(lambda cursor: ask(cursor, sql, parameters))

    def _commit(self, requests: Sequence[Request]) -> list[Outcome]:
        """Runs in the writer's thread."""
        return self._writer.run(lambda cursor: _store(cursor, requests))

    def _version(self, cursor: Any) -> int:
        """Number of the last migration, 0 where there is no ledger."""
        if not ask(cursor, "SELECT to_regclass('rmkit.ledger')::text")[0][0]:
            return 0
        [(version,)] = ask(cursor, "SELECT version FROM rmkit.ledger")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.where} was written by a newer rmkit (ledger schema {version}, known here: {len(MIGRATIONS)}); "
                "upgrade rmkit to open it"
            )
        return int(version)

    def _migrate(self, cursor: Any) -> None:
        ask(cursor, "SELECT pg_advisory_xact_lock(hashtext('rmkit.ledger'))::text")  # two first openers at once
        version = self._version(cursor)
        if version == 0:
            cursor.execute("CREATE SCHEMA IF NOT EXISTS rmkit")
            cursor.execute("CREATE TABLE rmkit.ledger (version INTEGER NOT NULL, last_seq BIGINT NOT NULL)")
            cursor.execute("INSERT INTO rmkit.ledger VALUES (0, 0)")
        for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
            cursor.execute(statement)
        if version < len(MIGRATIONS):
            cursor.execute(f"UPDATE rmkit.ledger SET version = {len(MIGRATIONS)}")


def _store(cursor: Any, requests: Sequence[Request]) -> list[Outcome]:
    appends, puts = divided(requests)
    # FOR UPDATE waits for the writer before us; the statements after it see what that one committed.
    [(last,)] = ask(cursor, "SELECT last_seq FROM rmkit.ledger FOR UPDATE")
    return united(
        requests,
        _insert(cursor, appends, last) if appends else [],
        _put(cursor, puts) if puts else [],
    )


def _put(cursor: Any, puts: Sequence[Put]) -> list[Outcome]:
    places = [{"kind": kind, "key": key} for kind, key in {(put.kind, put.key): None for put in puts}]
    result = ask(cursor, PLACES, (json.dumps(places, ensure_ascii=False),))
    changed, outcomes = plan_puts(puts, [StoredRecord(*row) for row in result])
    if changed:
        rows = [record._asdict() for record in changed]
        cursor.execute(PUT, (json.dumps(rows, ensure_ascii=False),))
    return outcomes


def _insert(cursor: Any, appends: Sequence[Sequence[Row]], last: int) -> list[Outcome]:
    ids = json.dumps([row.id for rows in appends for row in rows])
    fresh, outcomes = plan(appends, [_stored(row) for row in ask(cursor, BY_ID, (ids,))], last)
    if fresh:
        rows = [{"seq": seq, **row._asdict()} for seq, row in fresh]
        cursor.execute(INSERT, (json.dumps(rows, ensure_ascii=False),))
        cursor.execute("UPDATE rmkit.ledger SET last_seq = $1::bigint", (fresh[-1][0],))
    return outcomes


def _stored(result: tuple[Any, ...]) -> tuple[int, Row]:
    seq, event_id, kind, actor, time, payload, supersedes = result
    moment = time.astimezone(UTC).isoformat(timespec="microseconds")
    return seq, Row(event_id, kind, actor, moment, payload, supersedes)


def _record(result: tuple[Any, ...]) -> Record:
    key, value, version = result
    return Record(key, json.loads(value), version)
