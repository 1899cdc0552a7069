"""Files and folders that appear whole or not at all, whatever kills the process or fills the disk.

A draft lies beside its target as `.NAME.XXXXXXXX.rmkit-draft`, is put on disk, and takes the target's name in one
rename. A folder that has the name already changes places with the draft in one step (renameat2 with RENAME_EXCHANGE).
File systems without it need two renames; between them the former folder is called `.NAME.XXXXXXXX.rmkit-former`, and
`sweep` gives it its name back.

Who writes a draft holds a lock on it (flock, which ends with the process). So `sweep` knows the drafts that nobody will
finish, and removes them: at the next draft in the same folder, and for $RMKIT_HOME at the start of every command.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rmkit.errors import StoreError

DRAFT, FORMER = ".rmkit-draft", ".rmkit-former"
_LEFT = re.compile(rf"\.(?P<name>.+)\.[0-9a-f]{{8}}(?P<kind>{DRAFT}|{FORMER})")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_CANNOT_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.EPERM}


@contextlib.contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target`, for `put` to give it that name; what is not put is gone at the end of the block.

    Raises StoreError where it cannot be made, or where the disk fails the block.
    """
    with _drafting(target, os.mkdir) as draft:
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def draft_file(target: Path) -> Iterator[Path]:
    """The path of an empty file beside `target`, which takes its place at the end of the block, or is gone on failure.

    Raises StoreError where it cannot be made or moved, or where the disk fails the block.
    """
    with _drafting(target, lambda path: path.touch(exist_ok=False)) as draft:
        try:
            yield draft
            flush(draft)
            os.replace(draft, os.path.realpath(target))
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        flush(draft.parent)


def write_text(target: Path, text: str) -> None:
    """Give the file this content, or leave it as it was. Raises StoreError.

    Lone surrogates, which UTF-8 cannot hold, become JSON's escapes of them.
    """
    if target.exists() and not target.is_file():  # /dev/stdout
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    with draft_file(target) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def put(draft: Path, target: Path, *, replace: bool = False) -> None:
    """Give a draft folder, with all in it on disk, the name `target`.

    A folder of that name is replaced in one step where `replace` is set. Raises StoreError where one is there (and not
    empty) without it, or where the disk fails.
    """
    try:
        _put(draft, target, replace=replace)
    except OSError as error:
        raise _fault(target, error) from error


def _put(draft: Path, target: Path, *, replace: bool) -> None:
    place = Path(os.path.realpath(target))
    for folder, _, names in os.walk(draft):
        for name in names:
            flush(Path(folder) / name)
        flush(Path(folder))
    try:
        os.rename(draft, place)  # also onto an empty folder
    except OSError as error:
        if not replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchanged(draft, place):
            _replace_in_two_steps(draft, place)
    flush(place.parent)


def sweep(folder: Path, *, depth: int = 1) -> None:
    """Remove the drafts in `folder` (and folders in it, `depth` levels in all) whose writers are gone.

    A folder that was to be replaced when its writer died gets its name back. Failures are left for the next time.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if left := _LEFT.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _clear(Path(entry.path), left)
            elif depth > 1 and entry.is_dir(follow_symlinks=False):
                sweep(Path(entry.path), depth=depth - 1)


def flush(path: Path) -> None:
    """Put a file or a folder's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _drafting(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A draft of `target` in a swept folder, locked for this process. A link is followed, so the link itself stays."""
    place = Path(os.path.realpath(target))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place.parent)
        draft, descriptor = _locked(place, make)
    except OSError as error:
        raise _fault(target, error) from error
    try:
        yield draft
    except OSError as error:
        if error.errno in DISK_FAULTS:
            raise _fault(target, error) from error
        raise  # of something else that the block does
    finally:
        os.close(descriptor)


def _fault(target: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write {target}: {error.strerror or error}; free space or name another place")


def _locked(place: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    while True:
        draft = place.with_name(f".{place.name}.{secrets.token_hex(4)}{DRAFT}")
        make(draft)
        with contextlib.suppress(FileNotFoundError):  # another process's sweep came between making and locking
            descriptor = os.open(draft, os.O_RDONLY)
            with contextlib.suppress(OSError):  # no flock on this file system: nobody can sweep there either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), draft.stat()):
                return draft, descriptor
            os.close(descriptor)


def _clear(path: Path, left: re.Match[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError where its writer lives
        target = path.with_name(left["name"])
        if left["kind"] == FORMER and not target.exists():
            os.rename(path, target)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the two changed names in one step; False where the system cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_in_two_steps(draft: Path, target: Path) -> None:
    former = draft.with_name(draft.name.removesuffix(DRAFT) + FORMER)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # a sweep between the renames must not give the name back
        os.rename(target, former)
        try:
            os.rename(draft, target)
        except OSError:
            os.rename(former, target)
            raise
        shutil.rmtree(former, ignore_errors=True)
    finally:
        os.close(descriptor)
