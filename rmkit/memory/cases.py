"""Case memory with a learned scorer: which past case helps in a state (AgentFly, arXiv:2508.16153).

    phi(s, c) = e(s) * e(c) (by place), cosine, outcome of c, cosine x outcome
    Q(s, c)   = phi . w + b, clipped to [0, 1]      fitted to what came of using case c in state s

The closed form of `rmkit.curriculum.value_model` in place of the paper's network. Without trials nearness decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rmkit.curriculum.value_model import ValueModel
from rmkit.memory.memory import Embed, Entry, Floats, Memory, Near, unit_length


class Trial(NamedTuple):
    """Case `entry` was used in `context`, and `outcome` in [0, 1] came of it."""

    context: str
    entry: Entry
    outcome: float


@dataclass(frozen=True, slots=True)
class CaseScorer:
    """Q(state, case) in [0, 1]."""

    model: ValueModel
    embed: Embed

    @classmethod
    def fit(cls, trials: Sequence[Trial], embed: Embed, *, ridge: float = 1.0) -> CaseScorer:
        features = _features([(one.context, one.entry) for one in trials], embed)
        outcomes = np.array([one.outcome for one in trials])
        return cls(ValueModel.fit(features, outcomes, np.ones(len(trials)), ridge=ridge), embed)

    def choose(self, memory: Memory, context: str, k: int = 4, *, pool: int = 20) -> list[Near]:
        """Of the `pool` nearest cases the k with the highest Q, highest first; `similarity` holds Q."""
        near = memory.nearest(context, pool)
        if not near:
            return []
        q = self.model.predict(_features([(context, one.entry) for one in near], self.embed))
        order = np.argsort(-q, kind="stable")[:k]
        return [Near(near[at].entry, float(q[at])) for at in order]


def _features(pairs: Sequence[tuple[str, Entry]], embed: Embed) -> Floats:
    """[N, width + 3]; a case of unknown outcome counts as half a success."""
    states = unit_length(embed([context for context, _ in pairs]))
    cases = unit_length(embed([entry.context for _, entry in pairs]))
    product = states * cases
    cosine = product.sum(axis=1)
    outcome = np.array([0.5 if entry.value is None else entry.value for _, entry in pairs])
    return np.column_stack([product, cosine, outcome, cosine * outcome])
