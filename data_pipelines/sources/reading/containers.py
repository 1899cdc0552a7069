"""What a file is by its first bytes, and what it holds: a file may be compressed, an archive of files, or both.

An archive's members are shards of one load. Nothing is unpacked to disk and no member's name is used as a path. Sizes
are limited twice: what an archive declares, and what really comes out while it is read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, TypeAlias, cast

from data_pipelines.sources.reading.streams import CUT_OFF
from rmkit.errors import DataError

MAX_MEMBERS = 10_000
MAX_BYTES = 256 << 30  # of one file, unpacked
MAX_RATIO = 1_000  # above FREE_BYTES, unpacked to packed
FREE_BYTES = 1 << 30
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"FEA1", "feather"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_REFUSED = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"SQLite format 3\x00", "an SQLite database; export its table as CSV or JSON"),
    (b"%PDF", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls); save it as .xlsx or CSV"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the data; fetch it with git lfs pull"),
    (b"\x93NUMPY", "a NumPy array; write its rows as JSON lines or Parquet"),
)


class TooLargeError(DataError):
    """More bytes came out of a file, or were to come out of it, than are let out."""


Opener: TypeAlias = Callable[[], io.BufferedReader]
_COMPRESSED = ("gzip", "zstd", "bz2", "xz", "lz4")
_SUFFIXES = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".lz4")
_NO_DATA = (
    ".md",
    ".html",
    ".pdf",
    ".png",
    ".jpg",
    ".jpeg",
    ".yaml",
    ".yml",
    ".toml",
    ".py",
    ".lock",
    ".sh",
    ".ipynb",
    ".bib",
)
_NO_DATA_NAMES = ("license", "readme", "notice", "citation", "dataset_info.json", "dataset_infos.json", "changelog")


@dataclass(frozen=True)
class Member:
    """A file of rows: `open` gives its bytes from the beginning, `kind` what they are: text, parquet, arrow, xlsx.

    `position` says how many bytes of the outer file were read.
    """

    name: str
    kind: str
    open: Callable[[], io.BufferedReader]
    position: Callable[[], int] = lambda: 0


def members(path: Path, *, member: str | None = None, max_bytes: int = MAX_BYTES) -> list[Member]:
    """The files of rows in a file: itself, or the members of an archive (the one named). Raises DataError for a file
    that cannot be read, is empty, is of a kind that is not read, or is an archive over the limits. No more than
    `max_bytes` come out of any compressed stream.
    """
    raws: list[io.BufferedReader] = []

    def opened() -> io.BufferedReader:  # each reader has a file of its own: some close it when they go
        raws[:] = [open_file(path)]
        return raws[0]

    magic = _peek(opened())
    if not magic:
        raise DataError(f"{path} is empty: 0 bytes, nothing to ingest")
    result = _members(opened, magic, path.name, str(path), path.stat().st_size, max_bytes)
    if member is not None:
        named = [one for one in result if one.name == member or PurePosixPath(one.name).name == member]
        if not named:
            raise DataError(f"{path} has no member {member!r}; it has: {', '.join(one.name for one in result[:20])}")
        result = named
    return [replace(one, position=lambda: 0 if raws[0].closed else raws[0].tell()) for one in result]


def open_file(path: Path) -> io.BufferedReader:
    """Raises DataError where a path is no file that can be read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file")
    try:
        if path.exists() and not path.is_file():  # it is read twice: for its rows and for its hash
            raise DataError(f"{path} is a pipe or a device, not a file; save its content to a file first")
        return path.open("rb")
    except FileNotFoundError:
        broken = " (a symbolic link that leads nowhere)" if path.is_symlink() else ""
        raise DataError(f"no such file: {path}{broken}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def kind_of(magic: bytes) -> str:
    """gzip, zstd, bz2, xz, lz4, zip, tar, parquet, arrow, feather or text."""
    for start, kind in _MAGIC:
        if magic.startswith(start):
            return kind
    return "tar" if magic[257:262] == b"ustar" else "text"


def refusal(magic: bytes) -> str | None:
    """What a file is that is not read, None for one that may be."""
    for start, text in _REFUSED:
        if magic.startswith(start):
            return text
    if magic[:1] == b"\x80" and magic[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, which runs code when it is read; write its rows as JSON lines or Parquet"
    return None


def _peek(stream: io.BufferedReader, size: int = 512) -> bytes:
    try:
        return stream.peek(size)[:size]
    except (EOFError, OSError, zlib.error, lzma.LZMAError):
        return b""


def _members(opened: Opener, magic: bytes, name: str, where: str, size: int, limit: int) -> list[Member]:
    if (reason := refusal(magic)) is not None:
        raise DataError(f"{where} is {reason}")
    kind = kind_of(magic)
    if kind == "zip":
        return _zip_members(opened, where, limit)
    if kind == "tar":
        return _tar_members(opened, where, packed=size, limit=limit)
    if kind not in _COMPRESSED:
        return [Member(name, kind, opened)]

    def unpacked() -> io.BufferedReader:
        return decompressed(opened(), kind, where, limit)

    inner = _peek(unpacked())
    if (reason := refusal(inner)) is not None:
        raise DataError(f"{where} is {reason}")
    inner_kind = kind_of(inner)
    if inner_kind == "tar":
        return _tar_members(unpacked, where, packed=size, limit=limit)
    if inner_kind == "zip" or inner_kind in _COMPRESSED:
        raise DataError(f"{where} is an archive inside a compressed file; unpack it once")
    return [Member(_without_suffix(name), inner_kind, unpacked)]


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def decompressed(raw: IO[bytes], kind: str, where: str, limit: int = MAX_BYTES) -> io.BufferedReader:
    """The plain bytes of a compressed stream; more than `limit`, or far more than went in, is a DataError."""
    source: Any
    match kind:
        case "gzip":
            source = gzip.GzipFile(fileobj=raw)
        case "bz2":
            source = bz2.BZ2File(raw)
        case "xz":
            source = lzma.LZMAFile(raw)  # noqa: SIM115  closed with its reader
        case _:
            import pyarrow as pa

            source = pa.CompressedInputStream(raw, kind)
    return io.BufferedReader(_Counted(source, where, raw, limit=limit), buffer_size=1 << 16)


class _Counted(io.RawIOBase):
    """A stream that stops where too much comes out of it."""

    def __init__(self, source: Any, where: str, packed: IO[bytes] | None, *, limit: int = MAX_BYTES):
        self._source, self._where, self._packed, self._limit = source, where, packed, limit
        self._next = getattr(source, "read1", source.read)  # read would lose what comes before a damaged place
        self._read, self._damaged = 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._damaged:  # said again, where the first time was only a look ahead
            raise EOFError(CUT_OFF)
        try:
            data = self._next(len(buffer))
        except (lzma.LZMAError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
            self._damaged = True
            raise EOFError(CUT_OFF) from error
        self._read += len(data)
        packed = self._packed.tell() if self._packed is not None and self._packed.seekable() else 0
        if self._read > self._limit or (packed and self._read > FREE_BYTES and self._read > MAX_RATIO * packed):
            raise TooLargeError(
                f"{self._where}: {self._read >> 20:,} MB came out of {packed >> 10:,} KB, over the limit; nothing was "
                f"stored"
            )
        buffer[: len(data)] = data
        return len(data)


def _zip_members(opened: Opener, where: str, limit: int) -> list[Member]:
    try:
        archive = zipfile.ZipFile(opened())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{where} is a zip file that cannot be opened: {error}") from error
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    packed = sum(entry.compress_size for entry in entries)
    _check_sizes(where, len(entries), sum(entry.file_size for entry in entries), packed, limit)
    if "xl/workbook.xml" in names:
        return [Member(Path(where).name, "xlsx", opened)]
    if "mimetype" in names and any(name.endswith("content.xml") for name in names):
        raise DataError(f"{where} is an OpenDocument sheet; save it as .xlsx or CSV")
    if any(name.endswith("data.pkl") for name in names):
        raise DataError(f"{where} is a PyTorch file, which runs code when it is read; write its rows as JSON lines")
    result = []
    for entry in entries:
        if entry.is_dir() or not holds_data(entry.filename):
            continue
        if entry.flag_bits & 1:
            raise DataError(f"{where}: the member {entry.filename!r} is encrypted; unpack the archive first")
        if stat.S_ISLNK(entry.external_attr >> 16):
            continue

        def unpacked(entry: zipfile.ZipInfo = entry) -> io.BufferedReader:
            try:
                stream = archive.open(entry)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
                raise DataError(f"{where}: the member {entry.filename!r} cannot be read: {error}") from error
            return io.BufferedReader(_Counted(stream, where, None, limit=entry.file_size), buffer_size=1 << 16)

        result.append(_inner(entry.filename, unpacked, where, limit))
    return _some(result, where)


def _tar_members(opened: Opener, where: str, *, packed: int, limit: int) -> list[Member]:
    """Members of a tar, plain or inside of a compressed stream: each is read from the beginning of the archive on."""
    entries: list[Any] = []
    total = 0
    try:
        with tarfile.open(fileobj=opened(), mode="r|") as archive:
            for entry in archive:
                total += entry.size
                _check_sizes(where, len(entries) + 1, total, packed, limit)
                if entry.isfile() and holds_data(entry.name):
                    entries.append(entry)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{where} is a tar file that cannot be read: {error}") from error
    result = []
    for entry in entries:

        def unpacked(name: str = entry.name, size: int = entry.size) -> io.BufferedReader:
            archive = tarfile.open(fileobj=opened(), mode="r|")  # noqa: SIM115  the member outlives this call
            for one in archive:
                if one.name == name and (content := archive.extractfile(one)) is not None:
                    return io.BufferedReader(
                        _Counted(_Held(content, archive), where, None, limit=size), buffer_size=1 << 16
                    )
            raise DataError(f"{where} has no member {name!r} any more")

        result.append(_inner(entry.name, unpacked, where, limit))
    return _some(result, where)


class _Held:
    """A member's stream that keeps its archive open."""

    def __init__(self, content: IO[bytes], archive: tarfile.TarFile):
        self.read, self._archive = content.read, archive
        self.read1 = getattr(content, "read1", content.read)


def _inner(name: str, unpacked: Callable[[], io.BufferedReader], where: str, limit: int) -> Member:
    """A member, itself compressed perhaps."""
    magic = _peek(unpacked())
    kind = kind_of(magic)
    if (reason := refusal(magic)) is not None:
        raise DataError(f"{where}: the member {name!r} is {reason}")
    if kind in _COMPRESSED:
        packed = kind

        def plain() -> io.BufferedReader:
            return decompressed(unpacked(), packed, f"{where}: {name}", limit)

        return Member(_without_suffix(name), kind_of(_peek(plain())), plain)
    if kind in ("zip", "tar"):
        raise DataError(f"{where}: the member {name!r} is an archive itself; unpack it first")
    return Member(name, kind, unpacked)


def _some(result: list[Member], where: str) -> list[Member]:
    if not result:
        raise DataError(f"{where} is an archive without a file of rows in it")
    return sorted(result, key=lambda one: one.name)


def _check_sizes(where: str, n: int, declared: int, packed: int, limit: int) -> None:
    if n > MAX_MEMBERS:
        raise DataError(f"{where} has more than {MAX_MEMBERS:,} members; unpack it and name a folder")
    if declared > limit or (declared > FREE_BYTES and declared > MAX_RATIO * max(packed, 1)):
        raise TooLargeError(
            f"{where} declares {declared >> 20:,} MB in {packed >> 10:,} KB, over the limit; nothing was stored"
        )


def holds_data(name: str) -> bool:
    """Whether a file's name may be one of rows: no documentation, code, hidden file or picture."""
    path = PurePosixPath(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return False
    bare = path.name.lower()
    return not bare.endswith(_NO_DATA) and not bare.startswith(_NO_DATA_NAMES)


def seekable(stream: io.BufferedReader, where: str) -> BinaryIO:
    """A copy that can be read from any place, on disk where it is large; itself where it can already."""
    if stream.seekable():
        return stream
    copy = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115  closed with its reader
    try:
        while part := stream.read(1 << 20):
            copy.write(part)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{where} is cut off or damaged") from error
    copy.seek(0)
    return cast(BinaryIO, copy)


def files_in(folder: Path) -> tuple[list[Path], list[str]]:
    """(files of rows below a folder, sorted; what was passed over and why)."""
    result, skipped = [], []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            skipped.append(f"{name}: a symbolic link, not followed")
        elif path.is_file():
            if holds_data(name) and not name.endswith(".source.toml"):
                result.append(path)
            elif not name.startswith("."):
                skipped.append(f"{name}: not a file of rows")
    return result, skipped
