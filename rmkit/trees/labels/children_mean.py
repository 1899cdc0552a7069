"""A node that has children is worth the mean of them, whatever it was worth itself; a leaf its own mean outcome.

A first answer that reflection mended is rescored by what became of it: VeriRL's trace-back rescoring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rmkit.trees.tree import Floats, Tree, mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenMean:
    """No options. Children without any known outcome do not count."""

    def label(self, tree: Tree) -> Floats:
        def join(own: float, below: list[float]) -> float:
            value = mean(below)
            return own if math.isnan(value) else value

        return tree.up([mean(node.ends) for node in tree.nodes], join)
