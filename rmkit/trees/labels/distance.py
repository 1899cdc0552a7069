"""Values by the distance to the nearest right answer.

    v_0 = 0;  v = max(0, v_p + (1 - v_p) r / m)

r is +1 where a right leaf lies at or below the node, else -1; m counts the steps to the nearest right leaf, this one
included. A wrong step borrows m from its nearest ancestor that has one. Nodes without any verified leaf below have no
value. ReST-MCTS*, arXiv:2406.03816.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from rmkit.trees.tree import ROOT, Floats, Tree, largest


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    right: Annotated[float, "an outcome of at least this is right"] = 0.5

    def label(self, tree: Tree) -> Floats:
        best = tree.best()
        ends = [0.0 if largest(node.ends) >= self.right else math.inf for node in tree.nodes]
        to_go = tree.up(ends, lambda own, below: min(own, 1 + min(below)))  # steps behind the node
        value, borrowed = np.full(len(tree), math.nan), np.full(len(tree), math.inf)
        for at, node in enumerate(tree.nodes):
            if math.isnan(best[at]):
                continue
            reached = math.isfinite(to_go[at])
            borrowed[at] = to_go[at] + 1 if reached else (borrowed[node.parent] if at else math.inf)
            if at == ROOT:
                value[at] = 0.0
                continue
            before = value[node.parent]
            sign = 1 if reached else -1
            value[at] = max(0.0, before + (1 - before) * sign / borrowed[at])  # without any right leaf m is infinite
        return value
