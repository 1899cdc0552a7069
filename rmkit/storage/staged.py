"""What a command writes to an address: made on this machine by the rules of this machine, then published.

The place is $RMKIT_HOME/staged/KEY/NAME, the same for every run, so that what is begun there is gone on with. It is
gone when it is published, which is at the end of the command; results are shown after that.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rmkit.cli import display
from rmkit.errors import BusyError, RmkitError, StoreError, UsageError
from rmkit.ids import digest
from rmkit.storage.address import is_web, name_of, redacted
from rmkit.storage.fetch import fetch, forget
from rmkit.storage.files import open_place
from rmkit.storage.marks import is_unfinished
from rmkit.storage.places import remember, staged_root
from rmkit.storage.publish import check_free, publish_file, publish_folder

log = logging.getLogger(__name__)
MODEL = "reward_model.json"
BESIDE = ("{name}.run.json",)  # of a file of scores


@dataclass
class _Command:
    """What the running command writes for addresses (path -> address)."""

    places: dict[Path, str] = field(default_factory=dict)
    locks: list[IO[str]] = field(default_factory=list)


_COMMAND: contextvars.ContextVar[_Command | None] = contextvars.ContextVar("command", default=None)


def staged(address: str, *, again: bool = False, resumes: bool = False) -> Path:
    """The path to write to for what shall lie at the address. A file that is there already is there at the path, too;
    so is a folder for a command that `resumes`.

    Raises StoreError at once where a folder is published there already; with `again` or `resumes` at the end, and only
    where it is another one. BusyError where another process writes for this address, UsageError outside of a command.
    """
    if (command := _COMMAND.get()) is None:
        raise UsageError(f"{redacted(address)}: from Python write to a folder, and copy it there when it is complete")
    if is_web(address):
        raise UsageError(f"{redacted(address)} can be read, not written to; name a place like s3://BUCKET/KEY")
    place = open_place(address)
    folder = staged_root() / digest([address.rstrip("/")])[:32]
    path = folder / name_of(address)
    remember(path, address)
    if os.environ.get("RANK", "0") != "0":  # of several processes (torchrun) the first writes
        return path
    objects = place.objects(first=True)
    if not again and not resumes:
        check_free(place, objects)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
    except OSError as error:
        raise BusyError(f"another rmkit process writes for {redacted(address)}; wait until it has ended") from error
    command.locks.append(lock)
    if path.is_dir() and not (path / MODEL).is_file():  # training goes on from its model; all others begin anew
        shutil.rmtree(path)
    if ("" in objects or (resumes and objects)) and not any(folder.iterdir()) and not is_unfinished(objects):
        fetched = fetch(address, along=BESIDE)
        shutil.copytree(fetched.parent, folder, dirs_exist_ok=True)
        forget(fetched)
    command.places[path] = address
    display.hold_results()
    return path


@contextlib.contextmanager
def publishing() -> Iterator[None]:
    """A command. At its end, unless it raised, what it wrote for addresses is published, and its results are shown."""
    command = _Command()
    token = _COMMAND.set(command)
    try:
        with display.holding_results():
            yield
            for path, address in command.places.items():
                try:
                    _publish(path, address)
                except RmkitError as error:
                    raise StoreError(f"{error}; what was to be published lies in {path.parent}") from error
    finally:
        _COMMAND.reset(token)
        for lock in command.locks:
            lock.close()


def _publish(path: Path, address: str) -> None:
    """Publish what the path has become and what lies beside it (a plot, the summary of a file of scores), which comes
    first; then there is no more need of it here."""
    if not path.exists():
        return
    log.info("publishing %s", redacted(address))
    folder = address.rstrip("/").rpartition("/")[0]
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file() and not other.name.startswith("."):
            publish_file(other, f"{folder}/{other.name}")
    publish_folder(path, address) if path.is_dir() else publish_file(path, address)
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.with_suffix(".lock").unlink(missing_ok=True)
