"""The best child against the worst, at each node of the best path.

    Q(chosen) - Q(rejected) >= gap

Step-level Q of search trees, Zhai et al., arXiv:2409.09345. `implicit_q` gives Q from a model trained by DPO on such
pairs, without any search:  Q = exp(mean over the action's tokens of log softmax(l_policy - l_reference)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import DataError
from rmkit.trees.rules import StepPair, action_values
from rmkit.trees.siblings.by_value import best_path
from rmkit.trees.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    gap: Annotated[float, "Q may not lie closer together than this"] = 0.0
    value: Annotated[str, "label rule to go by; the search's Q, else the mean outcome, where none is named"] = ""
    everywhere: Annotated[bool, "nodes off the best path too"] = False

    def siblings(self, tree: Tree) -> list[StepPair]:
        q = action_values(tree, self.value)
        pairs = []
        for parent in range(len(tree)) if self.everywhere else best_path(tree, list(q)):
            known = [child for child in tree.nodes[parent].children if not math.isnan(q[child])]
            if len(known) < 2:
                continue
            chosen, rejected = max(known, key=lambda at: (q[at], -at)), min(known, key=lambda at: (q[at], at))
            if q[chosen] > q[rejected] and q[chosen] - q[rejected] >= self.gap:
                pairs.append(StepPair(chosen, rejected))
        return pairs


def implicit_q(policy_TV: ArrayLike, reference_TV: ArrayLike, tokens: Sequence[int]) -> float:
    """Q in (0, 1] of an action of T tokens, from both models' logits over V tokens at its places. The mean keeps short
    actions from winning by their length. Raises DataError for an action without tokens."""
    ratio_TV = np.asarray(policy_TV, dtype=np.float64) - np.asarray(reference_TV, dtype=np.float64)
    if not len(tokens) or ratio_TV.shape[0] != len(tokens):
        raise DataError(f"an action needs logits for each of its tokens: got {ratio_TV.shape[0]} of {len(tokens)}")
    shifted_TV = ratio_TV - ratio_TV.max(axis=1, keepdims=True)
    log_TV = shifted_TV - np.log(np.exp(shifted_TV).sum(axis=1, keepdims=True))
    return float(np.exp(log_TV[np.arange(len(tokens)), list(tokens)].mean()))
