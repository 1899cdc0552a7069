"""Right against wrong answers of different equivalence classes, never inside of one.

    weight = 1 / (n_right n_wrong)    so that every prompt counts once

GEPO (OORL): the same problem in several representations; the loss over the pairs' means is the preset `gepo` of
`rmkit.shaping`. Answers without a class are in a class of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rmkit.trees.rules import StepPair
from rmkit.trees.tree import Tree, mean


@dataclass(frozen=True, slots=True, kw_only=True)
class AcrossGroups:
    right: Annotated[float, "a mean outcome of at least this is right"] = 0.5

    def siblings(self, tree: Tree) -> list[StepPair]:
        value = {at: mean(node.ends) for at, node in enumerate(tree.nodes) if node.ends}
        right = [at for at, one in value.items() if one >= self.right]
        wrong = [at for at, one in value.items() if one < self.right]
        return [
            StepPair(one, other, weight=1 / (len(right) * len(wrong)))
            for one in right
            for other in wrong
            if not set(tree.nodes[one].groups) & set(tree.nodes[other].groups)
        ]
