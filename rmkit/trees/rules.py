"""What rules are, and the two functions that apply them by name.

A rule is a frozen dataclass whose fields are its options. A new one stands under a name by an entry point of the group
`rmkit.tree_labels` or `rmkit.tree_pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from rmkit import plugins
from rmkit.config import build
from rmkit.trees.tree import Floats, Tree


class StepPair(NamedTuple):
    """Two nodes behind the same prefix. `confidence` in (0, 1] in the first becomes a soft label."""

    chosen: int
    rejected: int
    confidence: float = 1.0
    weight: float = 1.0

    @property
    def smoothing(self) -> float:
        """min(1 - confidence, 1/2): label smoothing of MCTS-DPO (arXiv:2405.00451)."""
        return min(1 - self.confidence, 0.5)

    @property
    def p(self) -> float:
        """The soft label, at least 1/2."""
        return 1 - self.smoothing


class LabelRule(Protocol):
    def label(self, tree: Tree) -> Floats:
        """[M] a number for each node, NaN where nothing is known of it."""
        ...


class PairRule(Protocol):
    def siblings(self, tree: Tree) -> list[StepPair]:
        """Pairs in the order of their nodes."""
        ...


Named = str | Mapping[str, Any]  # "mean", or {use = "mean", low = 0}


def label(tree: Tree, rule: Named | LabelRule) -> Floats:
    """[M] labels of the nodes by a rule: its name, a table of name (`use`) and options, or the object."""
    return label_rule(rule).label(tree)


def siblings(tree: Tree, rule: Named | PairRule) -> list[StepPair]:
    """Pairs of nodes by a rule, given as for `label`."""
    return pair_rule(rule).siblings(tree)


def label_rule(rule: Named | LabelRule, *, trusted: bool = False) -> LabelRule:
    """The label rule that is meant. Raises UsageError for an unknown name, ConfigError for options it does not take."""
    result: LabelRule = _rule("tree_labels", rule, trusted=trusted)
    return result


def pair_rule(rule: Named | PairRule, *, trusted: bool = False) -> PairRule:
    """As `label_rule`, of pairs."""
    result: PairRule = _rule("tree_pairs", rule, trusted=trusted)
    return result


def _rule(group: str, rule: Any, *, trusted: bool) -> Any:
    if not isinstance(rule, str | Mapping):
        return rule
    table = {"use": rule} if isinstance(rule, str) else dict(rule)
    name = str(table.pop("use", ""))
    return build(plugins.resolve(group, name, trusted=trusted), table, where=f"rule {name}")


def action_values(tree: Tree, value: str = "", *, gamma: float = 1.0) -> Floats:
    """[M] Q of each node: what the search says (q, else reward + gamma value), else the mean of its fair outcomes.

    `value` names a label rule to go by instead. Where one node has a Q of the search, the others have no other.
    """
    if value:
        return label(tree, value)
    searched = [
        facts.q
        if not math.isnan(facts.q)
        else (0.0 if math.isnan(facts.reward) else facts.reward) + gamma * facts.value
        for facts in (node.facts for node in tree.nodes)
    ]
    return label(tree, "mean") if all(map(math.isnan, searched)) else tree.up(searched, lambda own, _: own)
