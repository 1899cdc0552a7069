"""The drawing weights of a project's items: from the last `rmkit label prioritize`, and from who queued an item."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labeling_ui.desk.items import Items
from labeling_ui.learning.strategies import Floats
from rmkit.atomic import draft_file

FILE = "weights.npy"


def write_weights(folder: Path, weights: Floats) -> None:
    """Replace the stored weights [n] at once."""
    with draft_file(folder / FILE) as draft, draft.open("wb") as file:
        np.save(file, np.asarray(weights, np.float64), allow_pickle=False)


def read_weights(folder: Path, items: Items) -> Floats | None:
    """[n] weights, None where nothing says that items differ.

    Items that came later than the stored weights, and all items where there are none, weigh the mean, times one to ten
    by the priority in [0, 1] with which they were queued.
    """
    queued = items.column("priority").to_numpy(zero_copy_only=False).astype(np.float64)
    stored = folder / FILE
    if not stored.is_file() and np.isnan(queued).all():
        return None
    known = np.load(stored, allow_pickle=False) if stored.is_file() else np.ones(0)
    weights = np.full(len(items), known.mean() if len(known) else 1.0)
    weights[: len(known)] = known[: len(items)]
    return np.where(np.isnan(queued), weights, weights * (1 + 9 * np.nan_to_num(queued)))
