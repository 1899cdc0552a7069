"""How much a file holds once it is unpacked, counted while it is read and given up over a limit.

For files of strangers: fifty megabytes may hold as many gigabytes, as gzip, in an archive, in the pages of Parquet.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.sources.reading.containers import Member, TooLargeError, members, seekable
from data_pipelines.sources.reading.tables import arrow_batches
from rmkit.data.parquet import MAX_ROW_BYTES, bounded_tables, written_bytes
from rmkit.errors import DataError

_PART = 1 << 20  # bytes
_DAMAGED = (EOFError, OSError, zlib.error, zipfile.BadZipFile)


def check_unpacked(path: Path, *, max_bytes: int, name: str) -> None:
    """Read the file to its end. Raises DataError once more than `max_bytes` have come out of all its members.

    A damaged file passes.
    """
    over = DataError(f"{name} unpacks to more than {max_bytes >> 20:,} MB; read it with: rmkit ingest")
    total = 0
    try:
        for member in members(path, max_bytes=max_bytes):
            for size in _sizes(member, name):
                total += size
                if total > max_bytes:
                    raise TooLargeError(str(over))
    except TooLargeError as error:
        raise over from error
    except (*_DAMAGED, DataError):
        return  # whoever reads its rows comes as far, and says what is wrong with it


def _sizes(member: Member, where: str) -> Iterator[int]:
    """The sizes of the parts of a member as they come out."""
    with member.open() as stream:
        match member.kind:
            case "parquet":
                for table in bounded_tables(seekable(stream, where), name=where):
                    yield MAX_ROW_BYTES if table is None else written_bytes(table)
            case "arrow" | "feather":
                for batch in arrow_batches(seekable(stream, where), where):
                    yield batch.nbytes
            case "xlsx":
                with zipfile.ZipFile(seekable(stream, where)) as archive:
                    yield sum(entry.file_size for entry in archive.infolist())
            case _:
                while part := stream.read(_PART):
                    yield len(part)
