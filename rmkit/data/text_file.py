"""Texts in a temporary file: memory holds eight bytes a text, whatever their length."""

from __future__ import annotations

import mmap
import tempfile
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class TextFile:
    """Append texts, then take them by position. A context manager; the file is gone at its end."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="rmkit-texts-")  # noqa: SIM115
        self._lengths: list[npt.NDArray[np.int64]] = []
        self._offsets = np.zeros(1, np.int64)
        self._map: mmap.mmap | None = None

    def __enter__(self) -> TextFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map = None  # arrays that were taken are copies
        self._file.close()

    def append(self, texts: Any) -> None:
        """The texts of an Arrow array of strings (a polars Series by `to_arrow`); null is the empty text."""
        chunk = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        array = chunk.cast(pa.large_string()).fill_null("")
        if not len(array):
            return
        _, offsets, data = array.buffers()
        at = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        if data is not None:
            self._file.write(memoryview(data)[at[0] : at[-1]])
        self._lengths.append(np.diff(at))

    def finish(self) -> None:
        """Make what was appended readable; nothing is appended after it."""
        self._offsets = np.concatenate([np.zeros(1, np.int64), *self._lengths]).cumsum()
        self._lengths = []
        self._file.flush()
        if self._offsets[-1]:
            self._map = mmap.mmap(self._file.fileno(), int(self._offsets[-1]), access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def n_bytes(self) -> npt.NDArray[np.int64]:
        """[n] length of each text in UTF-8."""
        return np.diff(self._offsets)

    def array(self) -> pa.LargeStringArray:
        """All texts where they lie; copy what you take (`take`, `pl.from_arrow`), then `release`."""
        data = pa.py_buffer(b"") if self._map is None else pa.py_buffer(self._map)
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(self._offsets), data)

    def release(self) -> None:
        """Give the pages that were read back to the system."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
