"""The step on the path to success against each sibling that led to none.

At every node some completion of which succeeds: the children that lead to a right leaf are preferred to those whose
known leaves are all wrong. A sibling that also succeeds, of which nothing is known, or which stopped for an outage (the
tool's fault, no choice of the policy) is in no pair. A tree without success gives none. TP-LLaMA, arXiv:2406.07115.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from rmkit.trees.rules import StepPair
from rmkit.trees.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPath:
    right: Annotated[float, "an outcome of at least this is right"] = 0.5
    outage: Annotated[str, "a search that stopped for this reason made no choice"] = "outage"

    def siblings(self, tree: Tree) -> list[StepPair]:
        best = tree.best()
        pairs = []
        for node in tree.nodes:
            chosen = [child for child in node.children if best[child] >= self.right]
            failed = [
                child
                for child in node.children
                if not math.isnan(best[child]) and best[child] < self.right
                if tree.nodes[child].facts.stop != self.outage
            ]
            pairs += [StepPair(one, other) for one in chosen for other in failed]
        return pairs
