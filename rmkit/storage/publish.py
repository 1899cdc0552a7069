"""From a finished folder or file of this machine to an address, so that no reader takes a part for the whole.

One object appears at once. A folder is published in the order of `marks`: a reader sees that it is not finished, or all
of it. Nothing is overwritten but what an unfinished publication of the same address left, as its list says; a folder
that is there already with the same content counts as published.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rmkit.cli import display
from rmkit.errors import StoreError
from rmkit.storage import checksums
from rmkit.storage.address import redacted
from rmkit.storage.files import Place, Remote, open_place
from rmkit.storage.marks import LAST, UNFINISHED, is_unfinished

THREADS = 4
READ_BYTES = 256 << 20


def check_free(address: str, objects: Mapping[str, Remote]) -> None:
    """Raises StoreError where the objects at an address are a finished folder."""
    if objects and "" not in objects and not is_unfinished(objects):
        raise StoreError(
            f"{redacted(address)} holds {_counted(len(objects))} already, and a published folder is never "
            "replaced; name another address"
        )


def publish_file(path: Path, address: str) -> None:
    """Put a file at the address, in place of what is there. Raises StoreError."""
    _upload(open_place(address), {"": path}, {})


def publish_folder(folder: Path, address: str) -> None:
    """Put a folder at the address. Raises StoreError where something else is there, or another process publishes there
    too."""
    place = open_place(address)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    objects = place.objects()
    if "" in objects:
        raise StoreError(f"{redacted(address)} is one object, and a folder cannot take its place; name another address")
    unfinished = is_unfinished(objects)
    if objects and not unfinished:
        if objects.keys() - {UNFINISHED} != files.keys() or _differing(place, files, objects):
            check_free(address, objects)
        _remove(place, [UNFINISHED] if UNFINISHED in objects else [])
        return
    stale = _listed(place) if unfinished else set()
    others = {name for name in objects if name not in stale and name != UNFINISHED}
    if others - files.keys() or _differing(place, {name: files[name] for name in others}, objects):
        raise StoreError(
            f"{redacted(address)} holds objects that are not rmkit's ({min(others)}); name another address"
        )
    owner = secrets.token_hex(16)
    note = json.dumps({"owner": owner, "files": sorted(files.keys() | stale)})
    place.call(lambda: place.files.pipe_file(place.below(UNFINISHED), note.encode()))
    _remove(place, sorted(objects.keys() & stale - files.keys()))
    last = [name for name in LAST if name in files][:1]
    before = {name: path for name, path in files.items() if name not in last}
    _upload(place, before, objects)
    _check(place, before, owner)
    _upload(place, {name: files[name] for name in last}, {})
    _remove(place, [UNFINISHED])


def _upload(place: Place, files: Mapping[str, Path], objects: Mapping[str, Remote]) -> None:
    """Put files there, but for those that are among the objects with the same content."""
    missing = {name: path for name, path in files.items() if not _is_object(path, objects.get(name))}
    total = sum(path.stat().st_size for path in missing.values())

    def put(item: tuple[str, Path]) -> int:
        name, path = item
        place.call(lambda: place.files.put_file(str(path), place.below(name)))
        return path.stat().st_size

    with (
        display.progress(f"publishing {redacted(place.address)}", total) as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        try:
            for size in pool.map(put, missing.items()):
                advance(size)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _check(place: Place, files: Mapping[str, Path], owner: str) -> None:
    """Raises StoreError unless the address now holds these files alone, and is still this publication's."""
    objects = place.objects()
    if UNFINISHED not in objects or json.loads(_content(place, UNFINISHED)).get("owner") != owner:
        raise StoreError(f"another process publishes to {redacted(place.address)} too; let one of them do it")
    wrong = sorted(objects.keys() - files.keys() - {UNFINISHED}) or _differing(place, files, objects)
    if wrong:
        raise StoreError(
            f"{redacted(place.address)}: {wrong[0]} is not what was put there, so another process writes to this "
            "address; name another one"
        )


def _differing(place: Place, files: Mapping[str, Path], objects: Mapping[str, Remote]) -> list[str]:
    """The files that the objects of their names are not. An ETag that is no MD5 of the content (KMS, unusual parts)
    tells nothing: such an object is read, a very large one is known by its size."""

    def same(name: str, path: Path) -> bool:
        if name not in objects or objects[name].size != (size := path.stat().st_size):
            return False
        matching = checksums.matches(path, objects[name].mark)
        if matching or (matching is None and size > READ_BYTES):
            return True
        return size <= READ_BYTES and _content(place, name) == path.read_bytes()

    return sorted(name for name, path in files.items() if not same(name, path))


def _is_object(path: Path, remote: Remote | None) -> bool:
    """Whether an object is known by size and ETag to be the file."""
    return remote is not None and remote.size == path.stat().st_size and bool(checksums.matches(path, remote.mark))


def _content(place: Place, name: str) -> bytes:
    return place.call(lambda: place.files.cat_file(place.below(name)))


def _listed(place: Place) -> set[str]:
    """What an unfinished publication was going to put there."""
    try:
        names = json.loads(_content(place, UNFINISHED))["files"]
    except (ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if isinstance(name, str)}


def _remove(place: Place, names: Collection[str]) -> None:
    for name in names:
        place.call(partial(place.files.rm_file, place.below(name)))


def _counted(n: int) -> str:
    return f"{n} object{'s' * (n != 1)}"
