"""A plan is worth the accuracy of the rollouts below it; so is everything that follows it.

    score(plan) = mean outcome of the completions that go through the node at depth `depth`

PTA-GRPO; how it joins outcome and format in a reward is the preset `pta_grpo` of `rmkit.shaping`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from rmkit.errors import ConfigError
from rmkit.trees.labels.mean import means_below
from rmkit.trees.tree import Floats, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    depth: Annotated[int, "steps that make the plan"] = 1

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"plan: depth must be at least 1, got {self.depth}")

    def label(self, tree: Tree) -> Floats:
        value, result = means_below(tree), np.full(len(tree), math.nan)
        for at, node in enumerate(tree.nodes):
            if node.depth >= self.depth:
                result[at] = value[at] if node.depth == self.depth else result[node.parent]
        return result
