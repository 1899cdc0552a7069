"""The tree: completions of one prompt merged by equal prefixes, up to each step end.

Node 0 is the prompt, every other node a step behind its parent. Two steps are the same where their texts are, but for
outer blanks (`key`). Nodes stand in preorder and children in the order of their keys, so a tree does not depend on the
order of its completions; a parent always comes before its children.

A completion may have been sampled from a prefix (`Path.start` steps were given to the policy). Its outcome says how
good the policy is at that prefix and at what it wrote behind it, but not how good it is at the steps before: who
continues from a right first half succeeds more often than who starts anew. `Node.drawn` therefore holds only the
outcomes that are fair samples at a node, `Node.ends` those of the completions that end there, wherever they began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmkit.errors import DataError

Floats = NDArray[np.float64]
ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A completion in steps. `outcome` is what a verifier says of it (1 right, 0 wrong; NaN where it cannot say), the
    first `start` steps were given and not sampled, `group` is its equivalence class, if it has one."""

    steps: tuple[str, ...]
    outcome: float = math.nan
    start: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a search says of a node; NaN and "" where it says nothing.

    `q` is the value of the step in its state, `value` that of the state behind it, `reward` what the step alone earned,
    `prior` its probability under the policy. `stop` says why the search ended there: answer, error, length, outage.
    """

    visits: float = math.nan
    q: float = math.nan
    value: float = math.nan
    prior: float = math.nan
    reward: float = math.nan
    stop: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`paths` counts the completions that go through, `groups` holds the classes of those that end here."""

    step: str
    parent: int
    depth: int
    children: tuple[int, ...]
    paths: int
    drawn: tuple[float, ...]
    ends: tuple[float, ...]
    groups: tuple[str, ...]
    facts: Facts

    @property
    def visits(self) -> float:
        """As the search counted them, else the completions that go through."""
        return float(self.paths) if math.isnan(self.facts.visits) else self.facts.visits


@dataclass(frozen=True, slots=True)
class Tree:
    nodes: tuple[Node, ...]
    key: Callable[[str], str]

    def __len__(self) -> int:
        return len(self.nodes)

    def walk(self, steps: Sequence[str]) -> tuple[int, ...]:
        """[S] the nodes of a completion's steps. Raises DataError for one that the tree does not hold."""
        at, result = ROOT, []
        for step in steps:
            key = self.key(step)
            child = next((one for one in self.nodes[at].children if self.key(self.nodes[one].step) == key), None)
            if child is None:
                raise DataError("the tree has no such path")
            result.append(at := child)
        return tuple(result)

    def steps(self, node: int) -> tuple[str, ...]:
        """The steps from the prompt to a node."""
        result = []
        while node != ROOT:
            result.append(self.nodes[node].step)
            node = self.nodes[node].parent
        return tuple(reversed(result))

    def up(self, start: Sequence[float] | Floats, join: Callable[[float, list[float]], float]) -> Floats:
        """[M] a number a node, from its own and those of its children, leaves first."""
        result = np.array(start, dtype=np.float64)
        for node in range(len(self) - 1, -1, -1):
            if children := self.nodes[node].children:
                result[node] = join(float(result[node]), [float(result[child]) for child in children])
        return result

    def best(self) -> Floats:
        """[M] the largest known outcome of all completions that go through a node, NaN without any."""
        return self.up([largest(node.ends) for node in self.nodes], lambda own, below: largest([own, *below]))

    def worst(self) -> Floats:
        """[M] the smallest one."""
        return -self.up([largest([-x for x in n.ends]) for n in self.nodes], lambda own, below: largest([own, *below]))


def largest(values: Iterable[float]) -> float:
    """The largest number that is not NaN; NaN without any."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def mean(values: Iterable[float]) -> float:
    """The mean of the numbers that are not NaN; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _joined(one: Facts, other: Facts) -> Facts:
    """What two equal siblings of a search say together: visits and priors add up, values are averaged by visits."""
    weights = [1.0 if math.isnan(facts.visits) else max(facts.visits, 1.0) for facts in (one, other)]

    def averaged(name: str) -> float:
        values = [getattr(facts, name) for facts in (one, other)]
        known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
        total = sum(weight for _, weight in known)
        return sum(value * weight for value, weight in known) / total if known else math.nan

    visits, priors = ([f for f in (getattr(one, name), getattr(other, name)) if not math.isnan(f)] for name in _SUMS)
    return Facts(
        visits=sum(visits) if visits else math.nan,
        prior=sum(priors) if priors else math.nan,
        q=averaged("q"),
        value=averaged("value"),
        reward=averaged("reward"),
        stop=max(one.stop, other.stop),
    )


_SUMS = ("visits", "prior")


@dataclass(slots=True)
class _Draft:
    step: str = ""
    children: dict[str, _Draft] = field(default_factory=dict)
    paths: int = 0
    drawn: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)


class Builder:
    """Collects completions, and what a search says of nodes, into a tree."""

    def __init__(self, *, key: Callable[[str], str] = str.strip) -> None:
        self._root = _Draft()
        self._key = key

    def add(self, path: Path) -> None:
        """Raises DataError for a completion without steps, or one of whose steps are given that it does not have."""
        if not path.steps or not 0 <= path.start <= len(path.steps):
            raise DataError(f"a completion of {len(path.steps)} steps, {path.start} of them given, is no path")
        at, known = self._root, not math.isnan(path.outcome)
        for depth, step in enumerate(("", *path.steps)):
            at = self._step(at, step) if depth else at
            at.paths += 1
            if known and path.start <= depth:
                at.drawn.append(path.outcome)
        at.ends += [path.outcome] if known else []
        at.groups += [path.group] if path.group else []

    def mark(self, steps: Sequence[str], facts: Facts) -> None:
        """What a search says of the node behind these steps, which may be new."""
        at = self._root
        for step in steps:
            at = self._step(at, step)
        at.facts = facts if at.facts == Facts() else _joined(at.facts, facts)

    def _step(self, at: _Draft, step: str) -> _Draft:
        child = at.children.setdefault(self._key(step), _Draft(step))
        # Of texts that differ in blanks the longest, whatever comes first: a last step lacks the line break without
        # which the next one would stick to it.
        child.step = max(child.step, step, key=lambda text: (len(text), text))
        return child

    def tree(self) -> Tree:
        """Raises DataError where nothing was added."""
        if not self._root.children:
            raise DataError("a tree needs at least one completion")
        order: list[tuple[_Draft, int, int]] = []
        children: list[list[int]] = []
        stack: list[tuple[_Draft, int, int]] = [(self._root, -1, 0)]
        while stack:  # no recursion: a trajectory may have a thousand steps
            draft, parent, depth = stack.pop()
            if parent >= 0:
                children[parent].append(len(order))
            stack += [(child, len(order), depth + 1) for _, child in sorted(draft.children.items(), reverse=True)]
            order.append((draft, parent, depth))
            children.append([])
        nodes = tuple(
            Node(
                step=draft.step,
                parent=parent,
                depth=depth,
                children=tuple(below),
                paths=draft.paths,
                drawn=tuple(sorted(draft.drawn)),
                ends=tuple(sorted(draft.ends)),
                groups=tuple(sorted(set(draft.groups))),
                facts=draft.facts,
            )
            for (draft, parent, depth), below in zip(order, children, strict=True)
        )
        return Tree(nodes, self._key)


def build(paths: Iterable[Path], *, key: Callable[[str], str] = str.strip) -> Tree:
    """The tree of completions. Raises DataError where there is none, or one has no steps."""
    builder = Builder(key=key)
    for path in paths:
        builder.add(path)
    return builder.tree()
