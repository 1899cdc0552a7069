"""The mean outcome at a node: the success rate of a policy that goes on from there.

    v = mean(outcomes), between `low` and `high`;  1[v >= threshold] with a threshold

Math-Shepherd, arXiv:2312.08935 (soft estimation). With low = 0 and high = 1 the value target of ReST-RL,
whose rewards may leave that range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rmkit.trees.tree import Floats, Tree, mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    threshold: Annotated[float | None, "hard labels: 1 from this rate on, else 0"] = None
    low: Annotated[float | None, "a mean below is raised to this"] = None
    high: Annotated[float | None, "a mean above is lowered to this"] = None
    over: Annotated[
        Literal["drawn", "below"],
        "drawn: completions sampled from here or before; below: all that go through, as a search backs them up",
    ] = "drawn"

    def label(self, tree: Tree) -> Floats:
        drawn = self.over == "drawn"
        value = np.array([mean(node.drawn) for node in tree.nodes]) if drawn else means_below(tree)
        if self.low is not None or self.high is not None:
            value = np.clip(value, self.low, self.high)
        return value if self.threshold is None else np.where(np.isnan(value), value, value >= self.threshold)


def means_below(tree: Tree) -> Floats:
    """[M] mean known outcome of all completions that go through a node, wherever they began."""
    total = tree.up([sum(node.ends) for node in tree.nodes], lambda own, below: own + sum(below))
    count = tree.up([len(node.ends) for node in tree.nodes], lambda own, below: own + sum(below))
    result: Floats = np.divide(total, count, out=np.full(len(tree), np.nan), where=count > 0)
    return result
