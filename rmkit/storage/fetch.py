"""From an address to files of this machine: $RMKIT_HOME/fetched/KEY/NAME, whole or not there.

KEY stands for the address and for what its objects are now (names, sizes, ETags), so that what did not change is
fetched once and what did is fetched anew. Objects are read in parts, several at a time; a part that comes short is no
answer, and a file whose ETag says otherwise is read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rmkit.atomic import draft_folder, put
from rmkit.cli import display
from rmkit.config import file_in, read_object
from rmkit.errors import DataError, StoreError
from rmkit.ids import digest, file_sha256
from rmkit.storage import checksums
from rmkit.storage.address import is_web, name_of, redacted
from rmkit.storage.files import Place, Remote, open_place
from rmkit.storage.marks import LAST, UNFINISHED, is_unfinished
from rmkit.storage.places import fetched_root, remember

PART_BYTES = 16 << 20
THREADS = 8
ROUNDS = 4
_IN_USE: dict[Path, int] = {}  # folders that this process has fetched, each with a descriptor that holds a shared lock


class CutShortError(OSError):
    """An answer that holds fewer or more bytes than were asked for."""


def fetch(address: str, *, along: Sequence[str] = ()) -> Path:
    """The file or folder of this machine that holds what lies at the address now.

    `along` are names ("{name}" is the file's own) of objects beside it that come too where they are there.

    Raises DataError where nothing is there, it is not published yet, or it is an export or a model whose files are not
    those that it lists; StoreError where the storage does not answer; UsageError and MissingExtraError as `open_place`.
    """
    place = open_place(address)
    objects = place.objects(first=True)
    if not objects:
        raise DataError(f"{redacted(address)}: nothing is there")
    if is_unfinished(objects):
        raise DataError(
            f"{redacted(address)} is not finished: it is being published right now, or its publication was cut off"
        )
    name = name_of(address)
    wanted = {name if not key else f"{name}/{key}": remote for key, remote in objects.items() if key != UNFINISHED}
    if "" in objects and not is_web(address):
        folder = address.rstrip("/").rpartition("/")[0]
        beside = sorted(one.format(name=name) for one in along)
        wanted |= {one: remote for one in beside if (remote := open_place(f"{folder}/{one}").objects().get(""))}
    return _cached(place, objects, wanted) / name


def fetch_matching(pattern: str, *, along: Sequence[str] = ()) -> list[Path]:
    """The files for the objects that a pattern (`s3://bucket/dumps/*.jsonl`) matches, sorted; otherwise as `fetch`."""
    parts = pattern.split("/")
    first = next(at for at, part in enumerate(parts) if re.search(r"[*?\[]", part))
    root = open_place("/".join(parts[:first]))
    matching = set(root.call(lambda: root.files.glob(root.below("/".join(parts[first:])))))
    objects = root.objects()
    names = [name for name, remote in objects.items() if remote.path in matching and not _is_along(name, along)]
    if not names:
        raise DataError(f"no object matches {redacted(pattern)}")
    folders = {name.rpartition("/")[0] for name in names}
    beside = [name for name in objects if name.rpartition("/")[0] in folders and _is_along(name, along)]
    name = name_of(root.address)
    folder = _cached(root, objects, {f"{name}/{one}": objects[one] for one in [*names, *beside]}) / name
    return sorted(folder / one for one in names)


def forget(path: Path) -> None:
    """Remove what was fetched as (or with) this path, unless another process has fetched it, too; other paths stay."""
    root = fetched_root()
    if not path.is_relative_to(root):
        return
    target = root / path.relative_to(root).parts[0]
    with locked(_lock_of(target)), contextlib.suppress(FileNotFoundError, BlockingIOError):
        descriptor = _IN_USE.pop(target, None) or os.open(target, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(target)
        finally:
            os.close(descriptor)


def _is_along(name: str, along: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.rpartition("/")[2], one.format(name="*")) for one in along)


def _cached(place: Place, objects: Mapping[str, Remote], wanted: Mapping[str, Remote]) -> Path:
    """The folder under `fetched` that holds the `wanted` ones of a place's objects by these names, fetched where it is
    not there yet. Raises StoreError where they change meanwhile."""
    facts = [f"{name}\0{remote.size}\0{remote.mark}" for name, remote in sorted(wanted.items())]
    target = fetched_root() / digest([place.address, *facts])[:32]
    remember(target / name_of(place.address), place.address)
    with locked(_lock_of(target)):
        if not target.is_dir():
            with draft_folder(target) as draft:
                remember(draft / name_of(place.address), place.address)
                _download(place, {draft / name: remote for name, remote in wanted.items()})
                # What has no checksum of its own may be made of two states of its object.
                if not {*objects.values()} & {*wanted.values()} <= {*place.objects().values()}:
                    raise StoreError(f"{redacted(place.address)} changed while it was read; run the same command again")
                _check_listed(draft / name_of(place.address))
                put(draft, target)
        if target not in _IN_USE:  # until the process ends
            _IN_USE[target] = os.open(target, os.O_RDONLY)
            fcntl.flock(_IN_USE[target], fcntl.LOCK_SH)
    return target


def _lock_of(target: Path) -> Path:
    return target.parent / f"{target.name[:2]}.lock"  # 256 locks serve all keys


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """One process at a time within it; without `wait` BlockingIOError where another one is. Ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _check_listed(folder: Path) -> None:
    """Raises DataError unless the files of an export or a model are those that its manifest names; other people's
    manifests say nothing."""
    for manifest in [folder / name for name in LAST if (folder / name).is_file()]:
        try:
            listed = read_object(manifest, raises=DataError, hint="").get("files")
        except DataError:
            continue
        for name, facts in listed.items() if isinstance(listed, dict) else ():
            stated = facts.get("sha256") if isinstance(facts, dict) else facts
            if isinstance(stated, str) and re.fullmatch(r"[0-9a-f]{64}", stated):
                path = file_in(folder, name, raises=DataError)
                if not path.is_file() or file_sha256(path) != stated:
                    raise DataError(f"{path} is missing or not what {manifest.name} says of it; publish it again")


def _download(place: Place, wanted: Mapping[Path, Remote]) -> None:
    for target in wanted:
        target.parent.mkdir(parents=True, exist_ok=True)
    pending, seen = dict(wanted), dict[Path, str]()
    for _ in range(ROUNDS):
        _read(place, pending)
        pending = {target: remote for target, remote in pending.items() if not _is_good(target, remote, seen)}
        if not pending:
            return
    target = next(iter(pending))
    raise StoreError(f"{redacted(place.address)}: {target.name} does not have the content of its ETag; try again later")


def _is_good(target: Path, remote: Remote, seen: dict[Path, str]) -> bool:
    """Whether the ETag is the file's, or two readings gave the same: then the ETag is none of the content (KMS)."""
    if checksums.matches(target, remote.mark) is not False:
        return True
    before, seen[target] = seen.get(target), file_sha256(target)
    return before == seen[target]


def _read(place: Place, wanted: Mapping[Path, Remote]) -> None:
    parts: list[tuple[Path, Remote, int | None]] = []
    for target, remote in wanted.items():
        target.touch()
        if remote.size is None or is_web(place.address):  # many web servers give no ranges
            parts.append((target, remote, None))
        else:
            os.truncate(target, remote.size)
            parts += [(target, remote, start) for start in range(0, remote.size, PART_BYTES)]
    total = sum(remote.size or 0 for remote in wanted.values())
    label = f"fetching {redacted(place.address)}"
    with display.progress(label, total or None) as advance, ThreadPoolExecutor(THREADS) as pool:
        try:
            for size in pool.map(lambda part: _read_part(place, *part), parts):
                advance(size)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _read_part(place: Place, target: Path, remote: Remote, start: int | None) -> int:
    """Bytes of one part, read into its place of the file; of the whole object where no part is named."""
    size = remote.size if start is None or remote.size is None else min(PART_BYTES, remote.size - start)

    def attempt() -> int:
        if start is None or size is None:
            place.files.get_file(remote.path, str(target))
            n = target.stat().st_size
        else:
            data = place.files.cat_file(remote.path, start=start, end=start + size)
            with target.open("r+b") as file:
                file.seek(start)
                n = file.write(data)
        if size not in (n, None):
            raise CutShortError(f"{n} bytes came where {size} were asked for")
        return n

    return place.call(attempt)
