"""What a command writes to an address: made on this machine by the rules of this machine, then published.

The place is $RMKIT_HOME/staged/KEY/NAME, the same for every run, so that what is begun there is gone on with. It is
gone when it is published, which is at the end of the command; results are shown after that.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rmkit.atomic import draft_folder, put
from rmkit.cli import display
from rmkit.errors import BusyError, RmkitError, StoreError, UsageError
from rmkit.ids import digest
from rmkit.storage.address import is_web, name_of, redacted
from rmkit.storage.fetch import fetch, forget, locked
from rmkit.storage.files import open_place
from rmkit.storage.marks import is_unfinished
from rmkit.storage.places import remember, staged_root
from rmkit.storage.publish import check_free, publish_file, publish_folder

log = logging.getLogger(__name__)
MODEL = "reward_model.json"
PUBLISHED = ".published"  # beside a folder that is a copy of what is at the address
BESIDE = ("{name}.run.json",)  # of a file of scores


@dataclass
class _Command:
    """What the running command writes for addresses (path -> address)."""

    places: dict[Path, str] = field(default_factory=dict)
    locks: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


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
    folder = staged_root() / digest([address.rstrip("/")])[:32]
    if (rank := os.environ.get("RANK", "0")) != "0":  # of several processes (torchrun) the first writes and publishes
        return _looked_at(address, folder, rank, command) if resumes else folder / name_of(address)
    objects = open_place(address).objects(first=True)
    if not again and not resumes:
        check_free(address, objects)
    path = folder / name_of(address)
    remember(path, address)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        command.locks.enter_context(locked(folder.with_suffix(".lock"), wait=False))
    except BlockingIOError as error:
        raise BusyError(f"another rmkit process writes for {redacted(address)}; wait for its end") from error
    command.places[path] = address
    display.hold_results()
    if path.is_dir() and not (path / MODEL).is_file():  # training goes on from its model; all others begin anew
        shutil.rmtree(path)
    if not objects:
        (folder / PUBLISHED).unlink(missing_ok=True)
    is_wanted = "" in objects or (resumes and objects and not is_unfinished(objects))
    if is_wanted and not any(folder.iterdir()):
        fetched = fetch(address, along=BESIDE)
        with draft_folder(folder) as draft:
            shutil.copytree(fetched.parent, draft, dirs_exist_ok=True)
            if fetched.is_dir():
                (draft / PUBLISHED).touch()
            put(draft, folder)
        forget(fetched)
    return path


def _looked_at(address: str, folder: Path, rank: str, command: _Command) -> Path:
    """A path of this process's own with the card of the model that the first process finds finished, if there is one.

    The first one publishes what it finds and removes it, so this one looks there before it asks the storage.
    """
    own = folder.with_name(f"{folder.name}-{rank}")
    command.locks.callback(shutil.rmtree, own, ignore_errors=True)
    path = own / name_of(address)
    path.mkdir(parents=True, exist_ok=True)
    try:
        card = (folder / path.name / MODEL).read_bytes()
    except FileNotFoundError:
        place = open_place(address)
        if MODEL not in (objects := place.objects()):
            return path
        card = place.call(lambda: place.files.cat_file(objects[MODEL].path))
    (path / MODEL).write_bytes(card)
    return path


def check_replaceable(path: Path) -> None:
    """Raises StoreError where another folder in place of this one could not be published."""
    if (path.parent / PUBLISHED).is_file():
        raise StoreError(f"{path} was published, which is never replaced; name another address")


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
        command.locks.close()


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
