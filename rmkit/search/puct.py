"""Value-guided tree search.

    puct    Q + c P sqrt(N_parent) / (1 + N)              AlphaMath, arXiv:2405.03553 (c = 1.5); P of the policy
    uct     Q + c sqrt((1 + ln N_parent) / (0.1 + N))     ReST-RL (c = 0.2)

A round walks down to a leaf by that number, lets the policy write `width` next steps there, scores them, and adds each
one's value to all nodes above it. A finished solution found again is worth the same again and costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from rmkit.search.space import Proposer, Reader, State, Trace
from rmkit.trees.tree import Facts

Formula = Literal["puct", "uct"]
CONSTANT: dict[str, float] = {"puct": 1.5, "uct": 0.2}


@dataclass(slots=True)
class _Node:
    state: State
    prior: float = 1.0
    done: bool = False
    visits: int = 0
    total: float = 0.0
    value: float = 0.0
    children: list[_Node] = field(default_factory=list)
    closed: bool = False  # nothing below it can be written any more


def exploration(formula: Formula, *, parent: int, own: int, prior: float, c: float) -> float:
    """What a child's number of visits adds to its Q."""
    if formula == "puct":
        return c * prior * math.sqrt(parent) / (1 + own)
    return c * math.sqrt((1 + math.log(max(parent, 1))) / (0.1 + own))


def tree_search(
    propose: Proposer,
    trace: Trace,
    read: Reader,
    *,
    budget: int,
    width: int,
    max_steps: int,
    formula: Formula = "puct",
    c: float | None = None,
) -> None:
    """Finishes solutions in the trace until the policy wrote as many steps as `budget` solutions have, as long as those
    that are finished are on average (the longest possible while there is none)."""
    root, width = _Node(()), min(width, budget)
    factor = CONSTANT[formula] if c is None else c
    while not root.closed and trace.written < budget * _length(trace, max_steps):
        path = [root]
        while path[-1].children:
            node = path[-1]
            open_ = [child for child in node.children if not child.closed]
            if not open_:
                node.closed = True
                break
            path.append(
                max(
                    open_,
                    key=lambda child: (
                        child.total / max(child.visits, 1)
                        + exploration(formula, parent=node.visits, own=child.visits, prior=child.prior, c=factor)
                    ),
                )
            )
        leaf = path[-1]
        if leaf.closed:
            continue
        _expand(leaf, propose, trace, read, width)
        if leaf.done or not leaf.children or len(leaf.state) + 1 >= max_steps:
            leaf.closed = not any(not child.done and len(child.state) < max_steps for child in leaf.children)
        for child in leaf.children:
            child.closed = child.done or len(child.state) >= max_steps
            for node in (*path, child):
                node.visits += 1
                node.total += child.value
    _write_facts(root, trace)


def _expand(leaf: _Node, propose: Proposer, trace: Trace, read: Reader, width: int) -> None:
    [extensions] = propose.steps([leaf.state], width)
    trace.written += len(extensions)
    known: dict[State, _Node] = {}
    for one in extensions:
        state = (*leaf.state, one.step) if one.step.strip() else leaf.state
        share = 1 / len(extensions) if math.isnan(one.prior) else one.prior
        if state in known:  # without probabilities the prior is how often the policy wrote it
            known[state].prior += share if math.isnan(one.prior) else 0.0
        elif state != leaf.state:
            known[state] = _Node(state, prior=share, done=one.done)
        elif leaf.state:
            leaf.done = True
    leaf.children = list(known.values())
    for child, scores in zip(leaf.children, trace.scores([child.state for child in leaf.children]), strict=True):
        last = scores[-1] if scores else math.nan
        child.value = 0.0 if math.isnan(last) else last
    trace.finish([child.state for child in leaf.children if child.done] + ([leaf.state] if leaf.done else []), read)


def _length(trace: Trace, longest: int) -> float:
    lengths = [len(state) for state in trace.finished]
    return sum(lengths) / len(lengths) if lengths else float(longest)


def _write_facts(root: _Node, trace: Trace) -> None:
    stack = list(root.children)
    while stack:
        node = stack.pop()
        stack += node.children
        trace.facts[node.state] = Facts(
            visits=node.visits,
            q=node.total / node.visits if node.visits else math.nan,
            value=node.value,
            prior=node.prior,
            stop="answer" if node.done else "",
        )
