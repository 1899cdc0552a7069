"""The on-disk cache of feature vectors: `$RMKIT_HOME/features/<encoder fingerprint>/*.npz`.

Immutable shards of (key, vector), written to a temporary name and renamed, so any number of processes may share a
folder. Vectors are fp16: that halves the space, its rounding (2^-11 relative) lies far below that of bf16 products, and
fresh vectors are rounded alike, so a cache never changes a score. A shard that cannot be read (the zip format carries
checksums) is ignored with a warning and its texts are encoded again.
"""

from __future__ import annotations

import logging
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmkit.atomic import draft_file
from rmkit.errors import StoreError

log = logging.getLogger(__name__)

Vectors = NDArray[np.float16]


class FeatureCache:
    """The shards of one folder. Reading never fails on a bad shard; writing is atomic and never fails a run.

    Shards never change, so their keys are read once and only new files are opened later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[Path] = set()
        self._row_of: dict[bytes, tuple[Path, int]] = {}

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Vectors [width] of those keys that are cached; of two shards with the same key the first found wins."""
        for path in sorted(set(self.folder.glob("*.npz")) - self._seen):
            self._seen.add(path)
            for row, key in enumerate(self._load(path, "keys")):
                self._row_of.setdefault(key.tobytes(), (path, row))
        target: dict[Path, list[tuple[bytes, int]]] = {}
        for key in set(keys) & self._row_of.keys():
            path, row = self._row_of[key]
            target.setdefault(path, []).append((key, row))
        by_key: dict[bytes, Vectors] = {}
        for path, rows in target.items():
            vectors = self._load(path, "vectors")
            by_key |= {key: vectors[row] for key, row in rows if row < len(vectors)}
        return by_key

    def _load(self, path: Path, name: str) -> NDArray[Any]:
        """One array of a shard; an empty one, with a warning, where the shard is damaged or gone."""
        try:
            with np.load(path, allow_pickle=False) as shard:
                return np.asarray(shard[name])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("feature shard %s is damaged and ignored (%s); its texts are encoded again", path, error)
            return np.empty((0, 16), dtype=np.uint8)

    def write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Add one shard. A full or read-only disk costs the cache, not the run: it is logged."""
        path = self.folder / f"{uuid.uuid4().hex}.npz"
        try:
            with draft_file(path) as draft, draft.open("wb") as file:
                np.savez(file, keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16), vectors=vectors)
        except (OSError, StoreError) as error:
            log.warning("features are not cached: %s", error)
