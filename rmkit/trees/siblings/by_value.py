"""All siblings by their Q, with the confidence that visits lend.

    Q = r + gamma V;  confidence = 1 / (1 + N_rejected / max(1, N_chosen))

Along the path of the best children (or everywhere), every two siblings whose Q differ make a pair; equal ones make
none. Where a sibling has an only child, and that one too, the pair is about the whole of what follows without a choice.
MCTS-DPO, Xie et al., arXiv:2405.00451.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

from rmkit.trees.rules import StepPair, action_values
from rmkit.trees.tree import ROOT, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class ByValue:
    gamma: Annotated[float, "discount of the value behind a step"] = 1.0
    value: Annotated[str, "label rule to go by; the search's Q, else the mean outcome, where none is named"] = ""
    everywhere: Annotated[bool, "siblings off the best path too"] = False
    merge: Annotated[bool, "a step is followed as long as it has one child"] = True

    def siblings(self, tree: Tree) -> list[StepPair]:
        q = action_values(tree, self.value, gamma=self.gamma)
        parents = range(len(tree)) if self.everywhere else best_path(tree, list(q))
        pairs = []
        for parent in parents:
            known = [child for child in tree.nodes[parent].children if not math.isnan(q[child])]
            for one, other in combinations(known, 2):
                if q[one] == q[other]:
                    continue
                chosen, rejected = (one, other) if q[one] > q[other] else (other, one)
                n_chosen, n_rejected = tree.nodes[chosen].visits, tree.nodes[rejected].visits
                confidence = 1 / (1 + n_rejected / max(1.0, n_chosen))
                pairs.append(StepPair(self._end(tree, chosen), self._end(tree, rejected), confidence))
        return pairs

    def _end(self, tree: Tree, node: int) -> int:
        while self.merge and len(tree.nodes[node].children) == 1 and not tree.nodes[node].ends:
            node = tree.nodes[node].children[0]
        return node


def best_path(tree: Tree, q: list[float]) -> list[int]:
    """The nodes from the prompt on, each time to the child of the largest Q, the first of equals."""
    path, at = [ROOT], ROOT
    while children := [child for child in tree.nodes[at].children if not math.isnan(q[child])]:
        at = max(children, key=lambda child: (q[child], -child))
        path.append(at)
    return path
