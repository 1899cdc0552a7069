"""`rmkit restore`: bring a backup back, verified before anything is touched.

Order: hash the backup, stage copies beside their final names, open them, and only then give the present files a second
name, NAME.replaced-TIME (with --force), and put the staged ones in their place. So each file is at every moment the old
one or the new one, whole: a kill never leaves a home without its ledger. Repeating the command is safe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any

import duckdb

from rmkit.atomic import draft_folder, flush
from rmkit.cli import arguments, display
from rmkit.config import read_object
from rmkit.errors import BusyError, DataError, StoreError
from rmkit.ledger import open_ledger
from rmkit.ledger.transfer import copy_ledger
from rmkit.paths import ledger_url, warehouse_path
from rmkit.storage.fetch import forget
from warehouse.migrate import check_schema
from warehouse.safety.backup import FORMAT, LEDGER, MANIFEST, WAREHOUSE, described, parts
from warehouse.sql import run
from warehouse.store import open_warehouse

RELEASE_WAIT_S = 10.0


def restore(source: Path, *, force: bool = False) -> dict[str, object]:
    """Put the backup's ledger and warehouse where this home has (or would have) its own.

    Gives {"restored": paths, "set_aside": paths, "ledger_filled": bool, "manifest", "principals": keys of accounts and
    tokens}. Raises DataError where the backup is incomplete or damaged, StoreError where files are in the way (without
    `force`), come from a newer rmkit or hold triggers, views or the like that rmkit did not make, BusyError where
    another process has them open. A PostgreSQL ledger must be empty, or hold the backup's first events, `force` or not.
    """
    manifest = verified(source)
    url, warehouse = ledger_url(), warehouse_path()
    remote = "://" in url
    homes = [(WAREHOUSE, warehouse)] if remote else [(LEDGER, Path(url)), (WAREHOUSE, warehouse)]
    present = {path: name for name, path in homes if path.exists()}
    if present and not force:
        raise StoreError(
            f"{' and '.join(map(str, present))} exist already; restore into another RMKIT_HOME, or add --force, "
            "which keeps the present files as *.replaced-TIME"
        )
    targets = {path: source / name for name, path in homes if manifest[name.split(".")[0]]}
    with _disk_errors(warehouse.parent), contextlib.ExitStack() as drafts:
        staged = {
            path: _staged(copy, drafts.enter_context(draft_folder(path)) / copy.name) for path, copy in targets.items()
        }
        filled = remote and manifest["ledger"] is not None
        if filled:
            _fill(url, source / LEDGER)
        for path, name in present.items():
            _require_closed_ledger(path) if name == LEDGER else _require_closed_warehouse(path)
        set_aside = [name for path in present for name in _set_aside(path, staged.get(path))]
        for path in staged.keys() - present.keys():
            os.replace(staged[path], path)
        for folder in {path.parent for path in staged}:
            flush(folder)
    result = {"restored": [*staged], "set_aside": set_aside, "ledger_filled": filled, "manifest": manifest}
    return result | {"principals": _principals() if manifest["ledger"] else []}


def _principals() -> list[str]:
    """The accounts and tokens of the ledger that is there now."""
    with open_ledger() as ledger:
        return [record.key for record in ledger.records("principal")]


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}; free space, then restore again") from error


def _staged(source: Path, staging: Path) -> Path:
    """A copy that was seen to open with this rmkit."""
    shutil.copyfile(source, staging)
    if source.name == LEDGER:
        with open_ledger(staging):
            pass
    else:
        with open_warehouse(staging, read_only=True) as connection:
            check_schema(connection, source)
    flush(staging)
    return staging


def _fill(url: str, source: Path) -> None:
    """Carry the backup's events and records into a ledger on a server."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copyfile(
            source, Path(folder) / LEDGER
        )  # opening a ledger writes to it; the backup stays as it is
        with open_ledger(copy) as old, open_ledger(url) as new:
            copy_ledger(old, new)


def _set_aside(path: Path, staged: Path | None) -> list[Path]:
    """Give a database and what belongs to it other names and put `staged` in its place; the new names.

    Only a damaged database still has a log beside it here. It goes first: beside the new file it would be replayed.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    names = {
        part: part.with_name(f"{path.name}.replaced-{stamp}{part.name.removeprefix(path.name)}") for part in parts(path)
    }
    for part, name in names.items():
        if part != path:
            part.rename(name)
    if staged is None:
        path.rename(names[path])
    else:
        try:
            os.link(path, names[path])  # a second name first, so that at no moment the name is nobody's
        except OSError:  # a file system without links
            path.rename(names[path])
        os.replace(staged, path)
    return list(names.values())


def _require_closed_ledger(path: Path) -> None:
    """Leaving WAL mode needs the file to oneself, and folds the log into it."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=RELEASE_WAIT_S)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise BusyError(f"another process has {path} open; stop it, then restore again") from error
    except sqlite3.DatabaseError:
        pass  # damaged, which may be why one restores: it is kept as it is


def _require_closed_warehouse(path: Path) -> None:
    """Opening it for writing needs it to oneself, and the checkpoint folds the log into it."""
    try:
        with open_warehouse(path, wait_s=RELEASE_WAIT_S) as connection:
            run(connection, "CHECKPOINT")
    except BusyError:
        raise
    except (StoreError, duckdb.Error):
        pass  # damaged, or from another rmkit: it is kept as it is


def verified(source: Path) -> dict[str, object]:
    """The manifest of a whole, undamaged backup. Raises DataError otherwise."""
    hint = f"{source} is no complete backup; take another one"
    keys: dict[str, type | tuple[type, ...]] = {
        "format": int,
        "ledger": (dict, NoneType),
        "warehouse": (dict, NoneType),
    }
    manifest = read_object(source / MANIFEST, raises=DataError, hint=hint, keys=keys)
    listed: dict[str, Any] = {LEDGER: manifest["ledger"], WAREHOUSE: manifest["warehouse"]}
    for name, entry in listed.items():
        kinds = {"bytes": int, "sha256": str} | ({"n_events": int} if name == LEDGER else {})
        if entry is not None and any(not isinstance(entry.get(key), kind) for key, kind in kinds.items()):
            raise DataError(f"{source / MANIFEST}: {name} lacks one of {', '.join(kinds)}; {hint}")
    if manifest["format"] > FORMAT:
        raise StoreError(f"{source} was written by a newer rmkit (format {manifest['format']}); upgrade rmkit")
    for name, entry in listed.items():
        if entry is None:
            continue
        path = source / name
        actual: dict[str, Any] = described(path) if path.is_file() else {"bytes": 0, "sha256": "no file"}
        if actual["sha256"] != entry["sha256"]:
            raise DataError(
                f"{path} is damaged: {actual['bytes']} bytes, sha256 {actual['sha256'][:12]}, expected "
                f"{entry['bytes']} and {entry['sha256'][:12]}; nothing was touched, use another backup"
            )
    return manifest


def main(argv: list[str]) -> int:
    """`rmkit restore`."""
    summary = "Bring a backup's ledger and warehouse into $RMKIT_HOME, verified before anything is touched."
    examples = ["restore /backups/monday", "restore /backups/monday --force"]
    parser = arguments.parser("restore", summary, examples=examples)
    parser.add_argument("source", type=Path, help="what rmkit backup wrote, a folder or s3://BUCKET/KEY")
    parser.add_argument(
        "--force", action="store_true", help="keep present files as *.replaced-TIME and take their place"
    )
    options = parser.parse_args(argv)
    result = restore(options.source, force=options.force)
    forget(options.source)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def _text(result: dict[str, Any]) -> str:
    ledger = result["manifest"]["ledger"]
    lines = [f"restored {path}" for path in result["restored"]]
    lines += [f"filled the PostgreSQL ledger with {ledger['n_events']} events"] if result["ledger_filled"] else []
    lines += [f"kept the former {path}" for path in result["set_aside"]]
    if principals := result["principals"]:
        lines.append(f"accounts and tokens that it lets in: {', '.join(principals)}; end those that you do not know")
    return "\n".join([*lines, "next: rmkit sync, which merges what the backed-up warehouse had not seen yet"])
