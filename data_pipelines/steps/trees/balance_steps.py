"""As many right as wrong steps at each place: of the more frequent label some are taken back, per prefix length.

Early steps are mostly right and late ones mostly wrong, so that a model could go by the place alone (GLoRe). Which
labels go is decided by a hash of the row and the seed, not by the order of rows. A row that loses all its labels is
dropped.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated

import polars as pl

from data_pipelines.algorithms.responses import result_of
from data_pipelines.steps import Context, StepResult
from rmkit.ids import content_hash


@dataclass(frozen=True, kw_only=True)
class Config:
    threshold: Annotated[float, "a label of at least this is right"] = 0.5
    seed: int = 0


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows of kind steps with fewer labels; others stay as they are."""
    rows = frame.to_dicts()
    places: dict[int, dict[bool, list[tuple[str, int]]]] = defaultdict(lambda: {True: [], False: []})
    for at, row in enumerate(rows):
        for place, label in enumerate(row["step_labels"] or ()):
            if label is not None:
                key = content_hash(f"{config.seed} {place} {row['id']}")
                places[place][label >= config.threshold].append((key, at))
    removed = 0
    labels = [list(row["step_labels"]) if row["step_labels"] else None for row in rows]
    for place, sides in places.items():
        n = min(map(len, sides.values()))
        for side in sides.values():
            for _, at in sorted(side)[n:]:
                own = labels[at]
                assert own is not None
                own[place] = None
                removed += 1
    kept, dropped = [], list[tuple[str, str, str | None]]()
    for row, own in zip(rows, labels, strict=True):
        if own is not None and all(label is None for label in own):
            dropped.append((row["id"], "no label is left to balance the others", None))
        else:
            kept.append(row | {"step_labels": own})
    total = sum(len(side) for sides in places.values() for side in sides.values())
    return result_of(frame, kept, dropped, {"labels": total, "removed": removed, "places": len(places)})
