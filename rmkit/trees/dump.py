"""Dumps of searches: nodes with their parents or children, and what the search says of them.

    {"prompt": "...", "nodes": [{"id": 0, "parent": null, "step": ""}, {"id": 1, "parent": 0, "step": "2 + 2 = 4",
     "visits": 7, "q": 0.4, "value": 0.5, "prior": 0.3, "reward": 1, "terminal": true}, ...], "reference": "4"}
    {"prompt": "...", "tree": {"children": [{"step": "2 + 2 = 4", "visits": 7, "children": []}]}}

A node's text is its step, or the whole text up to it (`state`), which must then begin with its parent's. Steps that
nowhere carry blanks at their ends are joined by line breaks. A search of an agent has a turn of the assistant with the
tools' replies to it as `messages` of each node; its steps are then those turns, as canonical JSON.

A node is terminal where it says so (`terminal`: true, or the reason: answer, error, length, outage); the reward of a
terminal node is its outcome, 0 to 1, or -1 to 1 where one of them is negative, and `outcome` says it outright. What is
wrong with a dump is a DataError that names the fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmkit.chat.reader import read_conversation
from rmkit.errors import DataError
from rmkit.ids import messages_json
from rmkit.trees.tree import Builder, Facts, Path, Tree

NAMES: dict[str, tuple[str, ...]] = {
    "step": ("step", "text", "action", "content"),
    "state": ("state", "prefix", "partial_solution"),
    "visits": ("visits", "visit_count", "n_visits", "N"),
    "q": ("q", "q_value", "Q"),
    "value": ("value", "v", "V"),
    "prior": ("prior", "p", "P"),
    "reward": ("reward", "r"),
    "outcome": ("outcome", "correct", "is_correct"),
    "terminal": ("terminal", "is_terminal", "stop"),
}
NUMBERS = ("visits", "q", "value", "prior", "reward")
LEAST = -1.0  # the outcome of a wrong answer where outcomes are signed


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpNode:
    """`steps` from the prompt to the node, `turns` whether they are an agent's; `outcome` is NaN where no verifier
    spoke."""

    steps: tuple[str, ...]
    facts: Facts
    outcome: float
    leaf: bool
    turns: bool = False


def read_dump(row: Mapping[str, Any]) -> list[DumpNode]:
    """All nodes of a dump but the root, parents first. Raises DataError for what is no tree."""
    flat = list(_nested(row["tree"])) if isinstance(row.get("tree"), Mapping) else _flat(row.get("nodes"))
    drafts = [(parent, node) for parent, node in flat]
    turns = any(node.get("messages") is not None for _, node in drafts)
    texts = [_turn(node, is_root=at == 0) for at, (_, node) in enumerate(drafts)] if turns else _texts(drafts)
    children = {parent for parent, _ in drafts}
    outcomes = _outcomes([node for _, node in drafts])
    steps: list[tuple[str, ...]] = []
    for at, (parent, _) in enumerate(drafts):
        steps.append((*steps[parent], texts[at]) if parent >= 0 else (texts[at],) if texts[at] else ())
    return [
        DumpNode(
            steps=steps[at],
            facts=Facts(**{name: _number(node, name) for name in NUMBERS}, stop=_stop(node)),
            outcome=outcomes[at],
            leaf=at not in children,
            turns=turns,
        )
        for at, (_, node) in enumerate(drafts)
        if steps[at]
    ]


def tree_of(nodes: Sequence[DumpNode]) -> Tree:
    """The tree of a dump; each node with an outcome counts as one completion."""
    builder = Builder()
    for node in nodes:
        if node.leaf or not math.isnan(node.outcome):
            builder.add(Path(steps=node.steps, outcome=node.outcome))
        builder.mark(node.steps, node.facts)
    return builder.tree()


def as_rows(nodes: Sequence[DumpNode]) -> list[dict[str, Any]]:
    """The nodes as the flat form that `read_dump` reads, without what is unknown."""
    place: dict[tuple[str, ...], int] = {(): 0}
    rows: list[dict[str, Any]] = [{"id": 0, "parent": None, "step": ""}]
    for node in sorted(nodes, key=lambda one: len(one.steps)):
        at = len(rows)
        step = {"messages": json.loads(node.steps[-1])} if node.turns else {"step": node.steps[-1]}
        row = {"id": at, "parent": place[node.steps[:-1]], **step}
        place.setdefault(node.steps, at)
        known = {name: getattr(node.facts, name) for name in NUMBERS} | {"outcome": node.outcome}
        row |= {name: value for name, value in known.items() if not math.isnan(value)}
        rows.append(row | ({"terminal": node.facts.stop} if node.facts.stop else {}))
    return rows


def _nested(root: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(parent's place, node) in preorder, without recursion."""
    stack: list[tuple[int, Any]] = [(-1, root)]
    place = 0
    while stack:
        parent, node = stack.pop()
        if not isinstance(node, Mapping):
            raise DataError("a node is not an object")
        yield parent, node
        below = node.get("children") or []
        if not isinstance(below, list):
            raise DataError("children is not a list")
        stack += [(place, child) for child in reversed(below)]
        place += 1


def _flat(nodes: Any) -> list[tuple[int, Mapping[str, Any]]]:
    if not isinstance(nodes, list) or not nodes or not all(isinstance(node, Mapping) for node in nodes):
        raise DataError("nodes is not a list of objects")
    ids = [_id(node.get("id", at)) for at, node in enumerate(nodes)]
    if len(set(ids)) < len(ids):
        raise DataError("two nodes share an id")
    parent = {key: _id(node.get("parent")) for key, node in zip(ids, nodes, strict=True)}
    for key, node in zip(ids, nodes, strict=True):
        for child in node.get("children") or []:  # ids of children, in place of or beside parents
            if parent.get(_id(child), key) not in (None, key):
                raise DataError("a node has two parents")
            if _id(child) not in parent:
                raise DataError("a child does not exist")
            parent[_id(child)] = key
    if any(above is not None and above not in parent for above in parent.values()):
        raise DataError("a node's parent does not exist")
    roots = [key for key, above in parent.items() if above is None]
    if not roots:
        raise DataError("the nodes form a cycle")
    if len(roots) > 1:
        raise DataError("several nodes have no parent")
    by_id = dict(zip(ids, nodes, strict=True))
    below: dict[Any, list[Any]] = {key: [] for key in ids}
    for key, above in parent.items():
        if above is not None:
            below[above].append(key)
    result: list[tuple[int, Mapping[str, Any]]] = []
    stack: list[tuple[int, Any]] = [(-1, roots[0])]
    while stack:
        above_at, key = stack.pop()
        stack += [(len(result), child) for child in reversed(below[key])]
        result.append((above_at, by_id[key]))
    if len(result) < len(nodes):
        raise DataError("the nodes form a cycle")
    return result


def _id(value: Any) -> str | None:
    return None if value is None else str(value)


def _texts(drafts: Sequence[tuple[int, Mapping[str, Any]]]) -> list[str]:
    """Each node's own step. The root's is empty, unless it is the first step itself."""
    texts: list[str] = []
    states: list[str] = []
    for at, (parent, node) in enumerate(drafts):
        before = states[parent] if parent >= 0 else ""
        step, state = _text(node, "step"), _text(node, "state")
        if step is None and state is None:
            step = "" if at == 0 else None
        if step is None and state is not None:
            if not state.startswith(before):
                raise DataError("a node's state does not begin with its parent's")
            step = state[len(before) :]
        if step is None or (at > 0 and not step.strip()):
            raise DataError("a node has no text")
        if state is not None and at > 0 and _bare(before + step) != _bare(state):
            raise DataError("a node's steps do not rebuild its state")
        texts.append(step)
        states.append(before + step if state is None else state)
    inner = [(at, parent) for at, (parent, _) in enumerate(drafts) if parent >= 0 and texts[parent]]
    if inner and not any(texts[at][:1].isspace() or texts[parent][-1:].isspace() for at, parent in inner):
        for at, _ in inner:
            texts[at] = "\n" + texts[at]
    return texts


def _turn(node: Mapping[str, Any], *, is_root: bool) -> str:
    """A node's turn as canonical JSON; the root has none, unless it is the first turn itself."""
    if node.get("messages") is None:
        if is_root and not (_text(node, "step") or "").strip():
            return ""
        raise DataError("some nodes are turns of an agent and others are not")
    first, *others = read_conversation(node["messages"], role="assistant")
    if first.role != "assistant" or any(one.role != "tool" for one in others):
        raise DataError("a node is not one turn of the assistant with the tools' replies")
    return messages_json((first, *others))


def _bare(text: str) -> str:
    return "".join(text.split())


def _get(node: Mapping[str, Any], name: str) -> Any:
    return next((node[alias] for alias in NAMES[name] if node.get(alias) is not None), None)


def _text(node: Mapping[str, Any], name: str) -> str | None:
    value = _get(node, name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"the {name} of a node is not text")
    return value


def _number(node: Mapping[str, Any], name: str) -> float:
    value = _get(node, name)
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise DataError(f"the {name} of a node is not a number")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"the {name} of a node is larger than any number that can be stored") from None


def _stop(node: Mapping[str, Any]) -> str:
    value = _get(node, "terminal")
    return value if isinstance(value, str) else "answer" if value is True or value == 1 else ""


def _outcomes(nodes: Sequence[Mapping[str, Any]]) -> list[float]:
    """[M] 0 ... 1, NaN where a node is no end or nobody verified it."""
    values = [_number(node, "outcome") for node in nodes]
    rewards = [_number(node, "reward") if _stop(node) else math.nan for node in nodes]
    if not all(LEAST <= reward <= 1 for reward in rewards if not math.isnan(reward)):
        raise DataError("rewards of terminal nodes lie neither between 0 and 1 nor between -1 and 1")
    if not all(0 <= value <= 1 for value in values if not math.isnan(value)):
        raise DataError("an outcome is not between 0 and 1")
    signed = any(reward < 0 for reward in rewards)
    if signed:
        rewards = [(reward + 1) / 2 for reward in rewards]
    return [reward if math.isnan(value) else value for value, reward in zip(values, rewards, strict=True)]
