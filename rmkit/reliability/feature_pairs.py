"""Pairs as frozen features: what the fast forms of the methods train small heads on.

`vectors` holds each distinct text once; a pair points at its prompt, the response that the label prefers and the other.
Features come from `rmkit.features.encoder` (unit length); heads scale them by sqrt(D), so that a component is about
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit.errors import DataError
from rmkit.reliability.label_weights import Flags, Floats, check_both_classes, check_ids


@dataclass(frozen=True, slots=True)
class FeaturePairs:
    """`vectors` [texts, D]; `rows` [n, 3] says which are prompt, chosen and rejected.

    `soft_label` [n] is the probability that the order is right (None: all 1), `weight` [n] each pair's (None: all 1).
    """

    ids: tuple[str, ...]
    vectors: NDArray[np.floating]
    rows: NDArray[np.int64]
    soft_label: Floats | None = None
    weight: Floats | None = None

    def __post_init__(self) -> None:
        check_ids(self.ids)
        if self.rows.shape != (len(self.ids), 3):
            raise DataError(f"{len(self.ids)} pairs need rows [{len(self.ids)}, 3], got {list(self.rows.shape)}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def finite(self) -> Flags:
        """[n] whether all three feature vectors are finite numbers."""
        usable: Flags = np.isfinite(self.vectors).all(axis=1)[self.rows].all(axis=1)
        return usable

    def take(self, index: ArrayLike) -> FeaturePairs:
        """The pairs of an index or mask, in its order; the vectors are shared."""
        chosen = np.arange(len(self))[np.asarray(index)]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            rows=self.rows[chosen],
            soft_label=None if self.soft_label is None else self.soft_label[chosen],
            weight=None if self.weight is None else self.weight[chosen],
        )

    def flipped(self, flips: ArrayLike) -> FeaturePairs:
        """The same pairs with the order turned round where the mask [n] says so."""
        rows = self.rows.copy()
        rows[np.asarray(flips, dtype=bool)] = rows[np.asarray(flips, dtype=bool)][:, [0, 2, 1]]
        return replace(self, rows=rows)


def oriented(
    ids: Sequence[str], vectors: NDArray[np.floating], rows: NDArray[np.int64], *, p: ArrayLike
) -> tuple[FeaturePairs, Flags]:
    """The decided pairs turned so that the label prefers the first response, and the mask [n] of the decided ones.

    `rows` [n, 3] are prompt, first, second; `p` [n] is the probability that first is better. Ties (p = 0.5) say nothing
    about order and stay out. Raises DataError where all labels prefer the same side.
    """
    p_n = np.asarray(p, dtype=np.float64)
    check_both_classes(p_n)
    decided = p_n != 0.5
    turned = rows.copy()
    turned[p_n < 0.5] = rows[p_n < 0.5][:, [0, 2, 1]]
    decided_ids = tuple(one for one, summary in zip(ids, decided, strict=True) if summary)
    return FeaturePairs(decided_ids, vectors, turned[decided], soft_label=np.maximum(p_n, 1 - p_n)[decided]), decided


def stacked(ids: Sequence[str], prompt: ArrayLike, chosen: ArrayLike, rejected: ArrayLike) -> FeaturePairs:
    """Pairs from three arrays [n, D], for callers whose features are not shared between pairs."""
    parts = [np.asarray(part) for part in (prompt, chosen, rejected)]
    n = len(parts[0])
    return FeaturePairs(tuple(ids), np.concatenate(parts), np.arange(3 * n).reshape(3, n).T.copy())
