"""A wrong draft marked where it first goes wrong, and a right way on from there.

    draft = steps before the first bad one + "[BAD] " + the rest

GLoRe's local refinement, arXiv:2402.10963: a policy learns to answer question and marked draft with a completion
that is right and shares the steps before the mark.
"""

from __future__ import annotations

from typing import NamedTuple

from rmkit.trees.labels.any_correct import AnyCorrect
from rmkit.trees.tree import ROOT, Tree

MARKER = "[BAD] "


class Refinement(NamedTuple):
    """`draft` is marked before its step `at` (from 0); `right` is the node of the right answer to learn."""

    draft: str
    at: int
    right: int


def refinements(tree: Tree, rule: AnyCorrect | None = None, *, marker: str = MARKER) -> list[Refinement]:
    """One for each wrong completion for which some right one shares all steps before its first bad one.

    Of several right ones that which is closest in depth, then the first.
    """
    rule = rule or AnyCorrect()
    good = rule.label(tree)
    results = []
    for leaf, node in enumerate(tree.nodes):
        if not node.ends or max(node.ends) >= rule.right:
            continue
        path = [leaf]
        while tree.nodes[path[-1]].parent != ROOT:
            path.append(tree.nodes[path[-1]].parent)
        path.reverse()
        at = next((i for i, one in enumerate(path) if good[one] == 0), None)
        before = ROOT if not at else path[at - 1]
        if at is None or good[before] != 1:
            continue
        steps = [tree.nodes[one].step for one in path]
        right = [
            one for one in _below(tree, before) if tree.nodes[one].ends and max(tree.nodes[one].ends) >= rule.right
        ]
        closest = min(right, key=lambda one: (abs(tree.nodes[one].depth - node.depth), one))
        results.append(Refinement("".join([*steps[:at], marker, *steps[at:]]), at, closest))
    return results


def _below(tree: Tree, node: int) -> list[int]:
    """The node and all behind it: in preorder they follow each other."""
    end = node + 1
    while end < len(tree) and tree.nodes[end].depth > tree.nodes[node].depth:
        end += 1
    return list(range(node, end))
