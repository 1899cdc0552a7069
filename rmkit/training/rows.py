"""What training reads and what validation measures: rows of encoded responses, and the numbers on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rmkit.models.transformer.packing import Ids

Array = NDArray[np.float64]
Outputs = Sequence[Sequence[Array]]  # [B][N]: per response one number, one per aspect, or one per step


class Preference(NamedTuple):
    """Responses i and j of a row: p is the probability that i is better; shares of a row add up to 1."""

    i: int
    j: int
    p: float
    share: float


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prompt with N encoded responses. `ranks` 0 is best, -1 unranked; `tokens` are the responses' own lengths.

    `ratings` [N][A] are on the data's own scales, NaN where missing; `step_index` [N][S] are the tokens that end steps,
    `step_labels` [N][S] in [0, 1], NaN where there is none. `truncated`: the prompt or a response was shortened.
    """

    id: str
    ids: tuple[Ids, ...]
    tokens: tuple[int, ...]
    preferences: tuple[Preference, ...]
    ranks: tuple[int, ...]
    margin: float
    weight: float
    family: int
    ratings: tuple[tuple[float, ...], ...] = ()
    step_index: tuple[Ids, ...] = ()
    step_labels: tuple[tuple[float, ...], ...] = ()
    truncated: bool = False

    @property
    def best(self) -> int:
        """The response ranked first; of pairs, the one preferred by most, the first of equals."""
        if 0 in self.ranks:
            return self.ranks.index(0)
        wins = [0.0] * len(self.ids)
        for one in self.preferences:
            wins[one.i] += one.share * one.p
            wins[one.j] += one.share * (1 - one.p)
        return wins.index(max(wins))

    def without_ids(self) -> TrainingRow:
        """The row as its outputs are judged: as many responses, but none of their ids."""
        return replace(self, ids=((),) * len(self.ids))


@dataclass(frozen=True, slots=True)
class Validation:
    """Margins over the preferences of the validation rows, and what all amounts to (`facts`, JSON-ready)."""

    margin: np.ndarray[Any, Any]
    p: np.ndarray[Any, Any]
    facts: dict[str, Any]
