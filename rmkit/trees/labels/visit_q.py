"""The value that a search gave each node: Q from its visits.

    Q = the search's own, else the mean over the completions below of  high (right) ... low (wrong)

A node at which the search stopped for an error, or because the text grew too long, is worth `low`. AlphaMath,
arXiv:2405.03553: terminal values +1 and -1, regressed at the end of each step (objective `step_value`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from rmkit.trees.tree import Floats, Tree

FAILED = ("error", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitQ:
    low: Annotated[float, "what a wrong answer is worth"] = -1.0
    high: Annotated[float, "what a right answer is worth"] = 1.0

    def label(self, tree: Tree) -> Floats:
        worth = [
            [self.low + (self.high - self.low) * value for value in node.ends]
            or ([self.low] if node.facts.stop in FAILED else [])
            for node in tree.nodes
        ]
        total = tree.up([sum(own) for own in worth], lambda own, below: own + sum(below))
        count = tree.up([len(own) for own in worth], lambda own, below: own + sum(below))
        backed_up = np.divide(total, count, out=np.full(len(tree), math.nan), where=count > 0)
        own = np.array([node.facts.q for node in tree.nodes])
        return np.where(np.isnan(own), backed_up, own)
