"""Dumps of searches: both forms say the same, and what is no tree is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rmkit.errors import DataError
from rmkit.trees.dump import as_rows, read_dump, tree_of
from rmkit.trees.rules import label, siblings

NESTED = {
    "children": [
        {
            "step": "3 * 4 = 12",
            "visit_count": 6,
            "q_value": 0.7,
            "p": 0.6,
            "children": [
                {"step": "2 + 12 = 14", "visits": 5, "q": 1, "terminal": True, "reward": 1},
                {"step": "2 + 12 = 15", "visits": 1, "q": -1, "terminal": True, "reward": -1},
            ],
        },
        {"step": "2 + 3 = 5", "visits": 2, "q": -0.5, "children": [{"step": "?", "terminal": "length", "visits": 2}]},
    ]
}


def node(at: int, parent: int | None, step: str = "x", **more: Any) -> dict[str, Any]:
    return {"id": at, "parent": parent, "step": step if at else "", **more}


def test_a_nested_dump_is_a_tree_with_what_the_search_knew() -> None:
    nodes = read_dump({"tree": NESTED})
    assert [one.steps for one in nodes][1] == ("3 * 4 = 12", "\n2 + 12 = 14")
    assert [one.outcome for one in nodes if one.leaf][:2] == [1.0, 0.0]  # signed rewards
    tree = tree_of(nodes)
    first = tree.walk(("3 * 4 = 12", "2 + 12 = 14"))
    assert [tree.nodes[at].visits for at in first] == [6, 5]
    assert tree.nodes[first[0]].facts.prior == 0.6
    assert [label(tree, "visit_q")[at] for at in first] == [0.7, 1]
    [pair, other] = siblings(tree, "by_value")
    assert (pair.confidence, other.confidence) == (6 / 8, 5 / 6)
    longest = next(one for one in nodes if one.steps[-1] == "\n?")
    assert math.isnan(longest.outcome)
    assert longest.facts.stop == "length"


def test_the_flat_form_is_read_whatever_the_order_of_its_nodes() -> None:
    nodes = read_dump({"tree": NESTED})
    rows = as_rows(nodes)
    again = read_dump({"nodes": [rows[0], *rows[:0:-1]]})
    assert tree_of(again).nodes == tree_of(nodes).nodes
    by_children = [node(0, None, children=[1]), {"id": 1, "step": "x", "children": [2]}, {"id": 2, "step": "y"}]
    assert [one.steps for one in read_dump({"nodes": by_children})] == [("x",), ("x", "\ny")]


def test_whole_texts_are_cut_behind_their_parents() -> None:
    rows = [{"id": 0, "parent": None}, {"id": 1, "parent": 0, "state": "a. "}, {"id": 2, "parent": 1, "state": "a. b."}]
    assert [one.steps for one in read_dump({"nodes": rows})] == [("a. ",), ("a. ", "b.")]


def test_equal_siblings_are_one_node_with_the_visits_of_both() -> None:
    rows = [
        node(0, None),
        node(1, 0, "a", visits=3, q=1.0),
        node(2, 0, "a ", visits=1, q=0.0),
        node(3, 0, "b", visits=1),
    ]
    tree = tree_of(read_dump({"nodes": rows}))
    [a, _] = tree.nodes[0].children
    assert tree.nodes[a].visits == 4
    assert tree.nodes[a].facts.q == 0.75


def turn(name: str, reply: str = "ok", text: str = "") -> list[dict[str, Any]]:
    call = {"id": f"c-{name}", "type": "function", "function": {"name": name, "arguments": {}}}
    turn = {"role": "assistant", "content": text, "tool_calls": [call]}
    return [turn, {"role": "tool", "content": reply, "tool_call_id": f"c-{name}"}]


def test_a_search_of_an_agent_has_turns_as_steps() -> None:
    rows = [
        {"id": 0, "parent": None, "step": ""},
        {"id": 1, "parent": 0, "messages": turn("look"), "visits": 3, "q": 0.5},
        {"id": 2, "parent": 1, "messages": [{"role": "assistant", "content": "14"}], "terminal": True, "reward": 1},
        {"id": 3, "parent": 1, "messages": turn("drop"), "terminal": True, "reward": 0},
    ]
    nodes = read_dump({"nodes": rows})
    assert all(one.turns for one in nodes)
    assert len(nodes[1].steps) == 2
    tree = tree_of(nodes)
    [pair] = siblings(tree, "on_path")
    assert "14" in tree.nodes[pair.chosen].step
    assert "drop" in tree.nodes[pair.rejected].step
    assert read_dump({"nodes": as_rows(nodes)}) == nodes


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([node(0, None), {"id": 1, "parent": 0, "messages": turn("a")}, node(2, 1)], "turns of an agent and others"),
        ([node(0, None), {"id": 1, "parent": 0, "messages": turn("a") + turn("b")}], "not one turn of the assistant"),
        ([node(0, None), {"id": 1, "parent": 0, "messages": []}], "no turn"),
        ([node(0, None), {"id": 1, "parent": 0, "messages": 3}], "neither text nor a list of turns"),
        ([node(0, 1), node(1, 0)], "form a cycle"),
        ([node(0, None), node(1, 2), node(2, 1)], "form a cycle"),
        ([node(0, None), node(1, 7)], "a node's parent does not exist"),
        ([node(0, None), node(1, 0, children=[9])], "a child does not exist"),
        ([node(0, None, children=[1]), node(1, None, children=[2]), node(2, 0)], "two parents"),
        ([node(0, None), node(1, None)], "several nodes have no parent"),
        ([node(0, None), node(0, None)], "share an id"),
        ([node(0, None), node(1, 0, " ")], "a node has no text"),
        ([node(0, None), node(1, 0, step=3)], "not text"),
        ([node(0, None), {"id": 1, "parent": 0, "state": "a"}, {"id": 2, "parent": 1, "state": "b"}], "begin with"),
        ([node(0, None), node(1, 0, "a", state="b")], "do not rebuild"),
        ([node(0, None), node(1, 0, "a", terminal=True, reward=7)], "neither between"),
        ([node(0, None), node(1, 0, "a", outcome=-1)], "an outcome is not between 0 and 1"),
        ([node(0, None), node(1, 0, "a", q="high")], "the q of a node is not a number"),
        ([], "not a list of objects"),
        ("x", "not a list of objects"),
    ],
)
def test_what_is_no_tree_says_why(nodes: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_dump({"nodes": nodes})
