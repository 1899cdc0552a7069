"""A scoring rule: what the evaluator and the probes need to know of it, one object a rule.

A rule is a name of the group `rules` of `rmkit.plugins`, or "module:object" in a suite's TOML that is given by path.
The name stands for a `Rule`, or for its function `credits` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from evaluation.suites.items import Answer, Credit, Item
from evaluation.suites.suite import Suite
from rmkit import plugins
from rmkit.types import ModelKind

Credits = Callable[[Suite, Sequence[Item], Mapping[str, Answer], ModelKind], list[Credit]]


def _no_order(item: Item) -> list[tuple[int, int]]:
    return []


@dataclass(frozen=True, slots=True)
class Rule:
    """`credits` of answered items; the model's kind says whether a judge gave them.

    order     (better, worse) positions of every two candidates whose order the item knows: what probes look at
    compares  the item is a pair, and models that are not pointwise are asked to compare it in both orders
    steps     the scores of a solution's steps are asked for, as probabilities
    probabilities   one response is scored by itself, and `Answer.predicted` is its probability of being good
    chance    what a fair draw among the candidates earns; None where there is nothing to draw from
    """

    credits: Credits
    order: Callable[[Item], list[tuple[int, int]]] = _no_order
    compares: bool = False
    steps: bool = False
    probabilities: bool = False
    chance: Callable[[Item, Answer], float] | None = None


def rule_of(suite: Suite, subset: str) -> Rule:
    """The rule of a subset. The suite has checked that there is one when it was read."""
    return _rule(suite.rule_of(subset))


@cache
def _rule(name: str) -> Rule:
    rule = plugins.resolve("rules", name, trusted=True)
    return rule if isinstance(rule, Rule) else Rule(rule)


def each(credits: Callable[[Item, Answer], list[Credit]]) -> Credits:
    """The credits of a rule that looks at one item at a time and at nothing of the suite."""
    return lambda suite, items, answers, kind: [one for item in items for one in credits(item, answers[item.id])]


def judged(answer: Answer, kind: ModelKind) -> bool:
    """Whether a judge gave the answer: one with `p`, and every one of a generative model."""
    return bool(answer.p) or kind == "generative"


def first_is_better(item: Item) -> list[tuple[int, int]]:
    """The order of a pair whose first candidate is the better one."""
    return [(0, 1)]
