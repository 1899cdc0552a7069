"""1 where any completion that goes through a node is right, 0 where all known ones are wrong.

    own(v) = 1[any outcome sampled at v >= right];  label(v) = max(own(v), labels behind v)

GLoRe's stepwise outcome model, arXiv:2402.10963: a later positive makes every earlier step positive, for the later one
could be reached from there. Without `repair` each node has what was sampled at it alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from rmkit.trees.tree import Floats, Tree, largest


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyCorrect:
    right: Annotated[float, "an outcome of at least this is right"] = 0.5
    repair: Annotated[bool, "a later positive makes every earlier step positive"] = True

    def label(self, tree: Tree) -> Floats:
        best = tree.best() if self.repair else np.array([largest(node.drawn) for node in tree.nodes])
        return np.array([math.nan if math.isnan(value) else float(value >= self.right) for value in best])
