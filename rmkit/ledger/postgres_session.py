"""Connections to PostgreSQL through ADBC: one per session, replaced when lost, its password in no message."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from rmkit.errors import BusyError, MissingExtraError, StoreError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from adbc_driver_postgresql.dbapi import Connection

# Acknowledged means on disk, whatever the database's default; stricter settings than `on` stay.
SYNC = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"

Answer = TypeVar("Answer")


def ask(cursor: Any, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    cursor.execute(sql, parameters or None)
    answer: list[tuple[Any, ...]] = cursor.fetchall()
    return answer


class Session:
    """One connection, shared by the threads of this process one at a time, replaced when it was lost."""

    def __init__(self, url: str, where: str, *, wait_s: float, read_only: bool = False) -> None:
        self._url = url
        self._read_only = read_only
        self._where = where
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._connection: Any = None

    def run(self, work: Callable[[Any], Answer]) -> Answer:
        """What `work(cursor)` gives, committed. A lost connection is replaced and the work done once more.

        That is safe for writing too: had the lost commit succeeded, the second finds its ids and stores nothing.
        """
        with self._lock:
            try:
                return self._attempt(work)
            except _driver().Error as error:
                if not _is_lost(error):
                    raise self._translated(error) from None
            try:
                return self._attempt(work)
            except _driver().Error as error:
                raise self._translated(error) from None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _attempt(self, work: Callable[[Any], Answer]) -> Answer:
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.cursor() as cursor:
                answer = work(cursor)
            self._connection.commit()
        except BaseException:
            self._drop()  # rolls back
            raise
        return answer

    def _connect(self) -> Connection:
        connection = _driver().connect(self._url)
        settings = {
            "lock_timeout": f"{int(self._wait_s * 1000)}ms",
            "idle_in_transaction_session_timeout": "60s",  # a stopped client may not hold up the others for good
            "default_transaction_isolation": "read committed",
            "TimeZone": "UTC",
            "application_name": "rmkit",
        } | ({"default_transaction_read_only": "on"} if self._read_only else {})
        with connection.cursor() as cursor:
            for name, value in settings.items():
                ask(cursor, "SELECT set_config($1, $2, false)", (name, value))
            ask(cursor, SYNC)
        connection.commit()
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(_driver().Error):
                connection.close()

    def _translated(self, error: Any) -> StoreError:
        """Without the original as its cause, which may quote the URL."""
        if error.sqlstate == "55P03":
            return BusyError(f"the ledger {self._where} was held by others for {self._wait_s:g} s; try again")
        reason = str(error).split("\n")[0]
        for secret in _secrets(self._url):
            reason = reason.replace(secret, "***")
        return StoreError(f"the ledger {self._where} failed: {reason}; check the server and RMKIT_LEDGER, then repeat")


def _driver() -> ModuleType:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise MissingExtraError("adbc-driver-postgresql", "postgres") from error
    driver: ModuleType = dbapi
    return driver


def _is_lost(error: Any) -> bool:
    """Whether the server or the line went away (SQLSTATE classes 08 and 57P, or none at all from libpq)."""
    return isinstance(error, _driver().OperationalError | _driver().InternalError) and (
        error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
    )


def without_secrets(url: str) -> str:
    """scheme://user@host:port/database. Raises UsageError, quoting nothing, where libpq might split it otherwise."""
    try:
        parts = urlsplit(url)
        address = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        address, parts = "", urlsplit("")
    userinfo, _, _ = parts.netloc.rpartition("@")
    unescaped = "@" in userinfo or userinfo.count(":") > 1 or "@" in parts.path + parts.fragment
    if not parts.scheme or unescaped or parts.fragment:
        raise UsageError(
            "the ledger URL cannot be split safely (it is not shown, it may hold a password); "
            "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE with @ : / ? # in a password percent-encoded"
        )
    return f"postgresql://{f'{parts.username}@' if parts.username else ''}{address}{parts.path}"


def _secrets(url: str) -> list[str]:
    """Every secret of the URL as written and as decoded, longest first."""
    parts = urlsplit(url)
    options = [option.partition("=") for option in parts.query.split("&")]
    query = [value for name, _, value in options if name in ("password", "sslpassword")]
    names = {value for secret in (parts.password or "", *query) for value in (secret, unquote(secret))}
    return sorted(names - {""}, key=len, reverse=True)
