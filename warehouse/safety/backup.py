"""`rmkit backup`: ledger and warehouse as one folder, consistent while both are in use.

    ledger.sqlite      a snapshot of all events (of a PostgreSQL ledger too: the format is portable)
    warehouse.duckdb   absent where there is no warehouse yet
    manifest.json      sha256, sizes, row counts, versions

The warehouse is copied first. It only holds events merged before, so the ledger's later snapshot has them all, and the
next sync after a restore merges the rest; the other order could give a warehouse that knows events its ledger lacks.

Everything is written to a folder of another name and renamed at the end: a folder of the asked name is complete.
Models, exports and feature caches are not copied: they can be made again, human work cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from rmkit import __version__
from rmkit.atomic import draft_folder, put
from rmkit.cli import arguments, display
from rmkit.errors import StoreError
from rmkit.ledger import open_ledger
from rmkit.ledger.transfer import snapshot
from rmkit.paths import ledger_url, warehouse_path
from warehouse.sql import run
from warehouse.store import STORAGE_VERSION, open_warehouse

FORMAT = 1
MANIFEST = "manifest.json"
LEDGER = "ledger.sqlite"
WAREHOUSE = "warehouse.duckdb"


def backup(destination: Path) -> dict[str, object]:
    """Copy the home's ledger and warehouse to the new folder `destination`; its manifest.

    Raises StoreError where that exists already, where there is nothing to copy or it cannot be written, BusyError where
    another process holds the warehouse for too long.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise StoreError(f"{destination} exists already; name a new folder (a backup is never overwritten)")
    url, warehouse = ledger_url(), warehouse_path()
    has_ledger = "://" in url or Path(url).exists()
    if not has_ledger and not warehouse.exists():
        raise StoreError(f"nothing to back up: neither {url} nor {warehouse} exists; set RMKIT_HOME")
    with draft_folder(destination) as folder:
        manifest = {
            "format": FORMAT,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {"rmkit": __version__, "duckdb": duckdb.__version__, "sqlite": sqlite3.sqlite_version},
            "warehouse": _copy_warehouse(warehouse, folder / WAREHOUSE) if warehouse.exists() else None,
            "ledger": _copy_ledger(url, folder / LEDGER) if has_ledger else None,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        put(folder, destination)
    return manifest


def _copy_warehouse(source: Path, target: Path) -> dict[str, object]:
    # A reader's lock keeps every writer out. Closing any descriptor of a file drops this process's locks on it (POSIX),
    # so all of them stay open until the last byte is copied.
    with contextlib.ExitStack() as files, open_warehouse(source, read_only=True, locked=True):
        for path in parts(source):
            opened = files.enter_context(path.open("rb"))
            with (target.parent / (target.name + path.name.removeprefix(source.name))).open("wb") as copy:
                shutil.copyfileobj(opened, copy, 1 << 20)
    tables = _tables(target)
    return described(target) | {"tables": tables}


def parts(path: Path) -> list[Path]:
    """A database file with what belongs to it: write-ahead logs, SQLite's journal and its shared memory."""
    names = {file: file.name.removeprefix(path.name) for file in sorted(path.parent.glob(f"{path.name}*"))}
    return [
        file
        for file, suffix in names.items()
        if suffix in ("", "-shm", "-journal") or ("wal" in suffix and ".replaced-" not in suffix)
    ]


def _tables(path: Path) -> dict[str, int]:
    """Row counts; folds the copied write-ahead log into the file on the way, which also shows that it opens."""
    with contextlib.closing(
        duckdb.connect(str(path), config={"storage_compatibility_version": STORAGE_VERSION})
    ) as copy:
        run(copy, "CHECKPOINT")
        names = [name for (name,) in run(copy, "SELECT table_name FROM duckdb_tables() ORDER BY table_name")]
        return {name: run(copy, f'SELECT count(*) FROM "{name}"')[0][0] for name in names}


def _copy_ledger(url: str, target: Path) -> dict[str, object]:
    with open_ledger(url) as ledger:
        snapshot(ledger, target)
    with contextlib.closing(sqlite3.connect(target)) as copy:
        [(n_events, last_seq)] = copy.execute("SELECT count(*), coalesce(max(seq), 0) FROM event").fetchall()
        [(schema,)] = copy.execute("PRAGMA user_version").fetchall()
    return described(target) | {"n_events": n_events, "last_seq": last_seq, "schema": schema}


def described(path: Path) -> dict[str, object]:
    """Size and hash of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def main(argv: list[str]) -> int:
    """`rmkit backup`."""
    summary = "Copy ledger and warehouse, consistently, while both are in use. Bring it back with: rmkit restore."
    parser = arguments.parser("backup", summary, examples=["backup /backups/monday", "backup $(date +%F) --json"])
    parser.add_argument("destination", type=arguments.output_path, help="a new folder, or s3://BUCKET/KEY")
    options = parser.parse_args(argv)
    manifest = backup(options.destination)
    display.emit(
        {"path": options.destination} | manifest, as_json=options.json, text=_text(options.destination, manifest)
    )
    return 0


def _text(destination: Path, manifest: dict[str, Any]) -> str:
    ledger, warehouse = manifest["ledger"], manifest["warehouse"]
    n_bytes = sum(part["bytes"] for part in (ledger, warehouse) if part)
    events = f"{ledger['n_events']} events" if ledger else "no ledger"
    rows = f"{sum(warehouse['tables'].values())} warehouse rows" if warehouse else "no warehouse"
    return f"{destination}: {events}, {rows}, {n_bytes / 1e6:.1f} MB; bring it back with: rmkit restore {destination}"
