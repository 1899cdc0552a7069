"""Opening the warehouse: one DuckDB file, held read-write only for short transactions.

DuckDB lets one process write, and while it does no other can even read. So every holder opens, works and closes, and
an opener that finds the file taken waits with jittered retries: a writer until it is free, a reader half a second. Then
the reader gets a private copy of the last commit (see `warehouse.snapshot`), so that an ingest of minutes keeps nobody
waiting. The file is written in the storage format of DuckDB 1.5, which 1.5 and 2.x can both read.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from rmkit.errors import BusyError, StoreError
from rmkit.paths import warehouse_path
from warehouse.migrate import check_version, migrate, migrations
from warehouse.snapshot import NAME, try_snapshot

STORAGE_VERSION = "v1.5.0"
# What DuckDB raises where a disk is full: while writing, at the commit, after a failed checkpoint, for spilled data.
DISK_ERRORS = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException, duckdb.OutOfMemoryException)
SNAPSHOT_AFTER_S = 0.5  # most writers are done by then, and the reader sees what they wrote
_DAMAGED = "Corrupt database file"  # a block with a wrong checksum: an error that has no class of its own


@contextlib.contextmanager
def open_warehouse(
    path: Path | None = None, *, read_only: bool = False, wait_s: float = 60.0, locked: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the warehouse at `path` (default `$RMKIT_HOME/warehouse.duckdb`), migrated, closed at the end.

    A reader that a writer keeps out reads a copy of the last commit, unless it must have the file itself and keep
    writers out (`locked`). A file of an earlier schema is migrated first, by a reader too: no query could read it
    otherwise.
    Raises BusyError when another process (or another thread, in the other mode) holds it for longer than `wait_s`,
    StoreError when it is absent (read_only), not a DuckDB file, from a newer rmkit, or cannot be written.
    """
    path = asked = path or warehouse_path()
    if read_only and not path.exists():
        raise StoreError(f"no warehouse at {path}; bring data in with: rmkit ingest FILE (or set RMKIT_HOME)")
    with contextlib.ExitStack() as scratch:
        if read_only and not locked:
            path, connection = _connect_beside_writers(path, scratch, wait_s)
        else:
            connection = _connect(path, read_only=read_only, wait_s=wait_s)
        try:
            if read_only:
                applied = check_version(connection, path)
                if not applied:  # its first writer was killed before it was done
                    raise StoreError(
                        f"{path} holds no data yet; bring some in with: rmkit ingest FILE (or set RMKIT_HOME)"
                    )
                if applied < migrations()[-1].number:
                    connection.close()
                    with open_warehouse(path, wait_s=wait_s):
                        pass
                    connection = _connect(path, read_only=True, wait_s=wait_s)
            else:
                migrate(connection, path)
            connection.execute("SET TimeZone = 'UTC'")
            if path != asked:  # the open file is enough: a killed reader leaves no copy of anybody's texts
                for file in path.parent.iterdir():
                    file.unlink()
            yield connection
        except DISK_ERRORS as error:
            raise StoreError(
                f"{path}: {_first_line(error)}; free disk space or check permissions, then repeat"
            ) from error
        except duckdb.Error as error:
            if _DAMAGED in str(error):
                raise StoreError(_damaged(path, error)) from error
            raise
        finally:
            connection.close()


def _connect_beside_writers(
    path: Path, scratch: contextlib.ExitStack, wait_s: float
) -> tuple[Path, duckdb.DuckDBPyConnection]:
    """What is read, the warehouse or a copy of its last commit that goes with `scratch`, and its connection."""
    give_up = time.monotonic() + wait_s
    try:
        return path, _connect(path, read_only=True, wait_s=min(wait_s, SNAPSHOT_AFTER_S))
    except BusyError as error:
        busy = error
    try:
        folder = Path(scratch.enter_context(tempfile.TemporaryDirectory(prefix="rmkit-read-")))
        while True:
            if try_snapshot(path, folder):
                with contextlib.suppress(duckdb.Error, StoreError):  # a log that was being written: try again
                    return folder / NAME, _connect(folder / NAME, read_only=True, wait_s=0.0)
            with contextlib.suppress(BusyError):
                return path, _connect(path, read_only=True, wait_s=0.0)
            if time.monotonic() > give_up:
                raise busy
    except OSError as error:
        raise StoreError(
            f"the warehouse {path} is being written, and there is no room for a copy to read in "
            f"{tempfile.gettempdir()} ({error}); set TMPDIR, or repeat when the writer is done"
        ) from error


def _connect(path: Path, *, read_only: bool, wait_s: float) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {"storage_compatibility_version": STORAGE_VERSION}
    give_up = time.monotonic() + wait_s
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot create {path.parent}: {error.strerror}; set RMKIT_HOME to a writable folder"
        ) from error
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise StoreError(f"cannot open the warehouse: {path} is not a file; move it away or set RMKIT_HOME")
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config=config)
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            # Another process holds the file, or another thread of this one holds it in the other mode.
            if not any(sign in str(error) for sign in (" lock", "different configuration")):
                raise StoreError(f"cannot open the warehouse: {_first_line(error)}") from error
            if time.monotonic() > give_up:
                raise BusyError(
                    f"the warehouse {path} is held by another process or thread ({_first_line(error)}); "
                    "repeat when it is done"
                ) from error
            time.sleep(random.uniform(0.01, 0.1))
        except duckdb.Error as error:
            if _DAMAGED in str(error):
                raise StoreError(_damaged(path, error)) from error
            raise


def _damaged(path: Path, error: duckdb.Error) -> str:
    return f"{path} is damaged ({_first_line(error)}); bring a backup back with: rmkit restore FOLDER"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].split(" See also")[0].removesuffix(".")


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All or nothing: commits at the end, rolls back on any exception."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # the failure may itself have ended the transaction
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
