"""Dumps of searches (`rmkit.trees.dump`): one tree a row, nested or as a list of nodes.

Every end of the tree becomes a response in steps, or in turns where an agent searched, rated `correct` where the dump
says what it was worth; the nodes with visits, Q and priors stay in meta, where `rmkit convert tree_labels` and
`tree_pairs` find them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import accumulate

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    require,
    response,
    rest,
    unit,
)
from rmkit.errors import DataError
from rmkit.trees.dump import DumpNode, as_rows, read_dump

OUTCOME = "correct"
_PROMPTS = ("prompt", "question", "problem")
_REFERENCES = ("reference", "ground_truth", "gold_answer")  # `answer` may be what the search answered
_SEARCHED = {"visits", "visit_count", "q", "q_value", "value", "prior", "terminal", "is_terminal", "reward", "parent"}


def is_search_tree(row: Row) -> bool:
    tree, nodes = row.get("tree"), row.get("nodes")
    nested = isinstance(tree, dict) and isinstance(tree.get("children"), list)
    flat = (
        isinstance(nodes, list) and bool(nodes) and all(isinstance(one, dict) and _SEARCHED & set(one) for one in nodes)
    )
    return any(row.get(name) is not None for name in _PROMPTS) and (nested or flat)


def search_tree(row: Row) -> Iterator[Unit]:
    require(is_search_tree(row), "a prompt with a tree, or with nodes that name their parents")
    name = next(one for one in _PROMPTS if row.get(one) is not None)
    try:
        nodes = read_dump(row)
    except DataError as error:
        raise UnusableRowError(str(error)) from None
    ends = {"".join(node.steps): node for node in nodes if node.leaf or not math.isnan(node.outcome)}
    if not ends:
        raise UnusableRowError("the tree has no node but the root")
    leaves = list(ends.values())
    if all(math.isnan(node.outcome) for node in leaves):
        raise UnusableRowError("no end of the tree is verified")
    scores = [(at, OUTCOME, node.outcome) for at, node in enumerate(leaves) if not math.isnan(node.outcome)]
    yield unit(
        field(row, name),
        [_response(node, row.get("model")) for node in leaves],
        [judgment("search", "verifier", scores=scores)],
        kind="list" if len(leaves) > 1 else "single",
        row_id=row.get("id"),
        reference=next((row[one] for one in _REFERENCES if row.get(one) is not None), None),
        subset=row.get("subset"),
        meta=rest(row, name, "tree", "nodes", "id", "subset", "model", *_REFERENCES) | {"tree": as_rows(nodes)},
    )


def _response(node: DumpNode, model: object) -> dict[str, object]:
    if node.turns:
        return response([message for turn in node.steps for message in json.loads(turn)], generator=model)
    return response("".join(node.steps), generator=model, step_ends=list(accumulate(map(len, node.steps))))


SEARCH_TREE = Source(
    "search-tree",
    "prompt and tree {children}, or nodes {parent, step, visits, q ...}",
    is_search_tree,
    search_tree,
    labels="outcomes of terminal nodes, 0 to 1 or -1 to 1",
)
