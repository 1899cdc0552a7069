"""The hash table: the label of a caption that was labeled, 0 for any other. It cannot generalize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmkit.ids import content_hash


@dataclass(slots=True)
class Table:
    """A caption's newest label, by the caption's content hash."""

    labels: dict[str, float] = field(default_factory=dict)

    def learn(self, captions: Sequence[str], labels: Sequence[float]) -> None:
        self.labels |= {content_hash(caption): label for caption, label in zip(captions, labels, strict=True)}

    def predict(self, captions: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.labels.get(content_hash(caption), 0.0) for caption in captions])
