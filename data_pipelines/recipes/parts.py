"""The frame of a recipe as files of some thousand rows each, so that only a few of them are in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from warehouse.versions.stream import PIECE_ROWS

SUFFIX = ".arrow"


class Parts(Collection[pl.DataFrame]):
    """The files NNNNN.arrow of a folder, in order; there is at least one. `n_rows` of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(folder.glob(f"*{SUFFIX}"))
        if not self.paths:
            raise FileNotFoundError(f"{folder} holds no part")
        self.n_rows = int(pl.concat(pl.scan_ipc(path).select(pl.len()) for path in self.paths).collect().sum().item())

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return map(pl.read_ipc, self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, one: object) -> bool:
        return False

    def select(self, columns: Sequence[str | pl.Expr]) -> pl.DataFrame:
        """These columns of all rows; the others are not read."""
        return pl.concat([pl.scan_ipc(path).select(columns).collect() for path in self.paths])


def write_parts(folder: Path, frames: Iterable[pl.DataFrame]) -> Parts:
    """The frames, those without rows left out, as the parts of an existing folder."""
    number, empty = 0, None
    for frame in frames:
        for piece in frame.iter_slices(PIECE_ROWS):
            write_part(folder, number, piece)
            number += 1
        empty = frame.clear() if empty is None else empty
    if not number and empty is not None:
        write_part(folder, 0, empty)
    return Parts(folder)


def write_part(folder: Path, number: int, frame: pl.DataFrame) -> None:
    """One part."""
    frame.write_ipc(folder / f"{number:05d}{SUFFIX}", compression="lz4")
