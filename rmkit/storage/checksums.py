"""Whether a file has the content that an object's ETag stands for, where that can be told."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

_MB = 1 << 20
_PARTS_MB = (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512)  # of the usual uploaders; 50 is s3fs's


def matches(path: Path, mark: str) -> bool | None:
    """True where the file has this ETag; False where one that looks like an MD5 is not the file's; None elsewhere.

    S3's ETag is the MD5 of an object put in one piece, of n parts the MD5 of theirs and "-n"
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html). Under KMS keys it looks the same and is neither.
    """
    if re.fullmatch(r"[0-9a-f]{32}", mark):
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == mark
    if parts := re.fullmatch(r"([0-9a-f]{32})-(\d+)", mark):
        size, n = path.stat().st_size, int(parts[2])
        fitting = [part * _MB for part in _PARTS_MB if -(-size // (part * _MB)) == n]
        if any(_of_parts(path, part) == parts[1] for part in fitting):
            return True
    return None


def _of_parts(path: Path, size: int) -> str:
    whole = hashlib.md5(usedforsecurity=False)
    for part in _pieces(path, size):
        whole.update(part)
    return whole.hexdigest()


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """The MD5 of each part of a file."""
    with path.open("rb") as file:
        left = path.stat().st_size
        while left > 0:
            part, rest = hashlib.md5(usedforsecurity=False), min(size, left)
            left -= rest
            while rest > 0 and (piece := file.read(min(rest, _MB))):
                part.update(piece)
                rest -= len(piece)
            yield part.digest()
