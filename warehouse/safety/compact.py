"""Rewriting the warehouse file, so that what was deleted is not on disk any more.

DuckDB frees the blocks of changed rows without clearing them: after an UPDATE and a CHECKPOINT the old text can still
be read from the file with grep (measured; tests/warehouse/safety/test_erase.py keeps the measurement). Copying the live
rows into a new file and putting it in the old one's place is the only way to be rid of them; it costs about as much as
loading the warehouse once (half a second for 5 MB of text) and as much free disk as the file is large.
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from rmkit.atomic import draft_folder, flush
from rmkit.errors import StoreError
from warehouse.sql import run
from warehouse.store import STORAGE_VERSION


def rewrite_file(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Replace the file at `path`, which `connection` holds read-write, by a copy of its live rows.

    The connection still holds the old, now nameless file: close it without writing. Nobody can slip in between, because
    the name changes hands while the lock is held. Raises StoreError where there is no room; the old file stays then.
    """
    run(connection, "CHECKPOINT")
    if path.with_name(path.name + ".wal").exists():
        raise StoreError(f"{path} cannot be rewritten: its write-ahead log is still in use; close other readers first")
    (name,) = run(connection, "SELECT current_database()")[0]
    try:
        with draft_folder(path) as draft:
            fresh = draft / path.name
            quoted = str(fresh).replace("'", "''")
            run(connection, f"ATTACH '{quoted}' AS fresh (STORAGE_VERSION '{STORAGE_VERSION}')")
            run(connection, f'COPY FROM DATABASE "{name}" TO fresh')
            run(connection, "DETACH fresh")
            flush(fresh)
            os.replace(fresh, path)
            flush(path.parent)
    except (duckdb.Error, OSError, StoreError) as error:
        first = str(error).split("\n")[0]
        raise StoreError(
            f"{path} could not be rewritten: {first}; erased text may remain in its free blocks"
        ) from error
