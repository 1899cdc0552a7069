"""Solutions that models wrote, merged into trees: how much they share, and labels beside the given verdicts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import numpy as np

from rmkit import plugins
from rmkit.metrics.steps import auc
from rmkit.trees.rules import label, siblings
from rmkit.trees.tree import Path, Tree, build


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """`branching` nodes but the prompts have two children or more."""

    problems: int
    solutions: int
    nodes: int
    prompts_branching: int
    branching: int
    deepest_branching: int
    pairs: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Mean label of the steps before the last of right and of wrong solutions, and how well their mean tells the two
    apart. The last step's own verdict is left out: it is the label."""

    rule: str
    right: float
    wrong: float
    auc: float


def read(path: File) -> Iterator[list[Path]]:
    """The solutions of each problem of a file of form `nway`, a line a step."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            row: dict[str, Any] = json.loads(line)
            yield [
                Path(steps=tuple(one["text"].strip().splitlines(keepends=True)), outcome=float(one["score"]))
                for one in row["responses"]
            ]


def verdicts(path: File) -> tuple[Trees, list[Verdicts]]:
    """Of all problems of the file."""
    problems = list(read(path))
    trees = [build(paths) for paths in problems]
    rules = [
        (name, {"use": name} | ({"over": "below"} if name == "mean" else {})) for name in plugins.names("tree_labels")
    ]
    return _shape(problems, trees), [_beside(name, rule, problems, trees) for name, rule in rules]


def _shape(problems: list[list[Path]], trees: list[Tree]) -> Trees:
    inner = [node for tree in trees for node in tree.nodes[1:] if len(node.children) > 1]
    return Trees(
        problems=len(trees),
        solutions=sum(map(len, problems)),
        nodes=sum(map(len, trees)),
        prompts_branching=sum(len(tree.nodes[0].children) > 1 for tree in trees),
        branching=len(inner),
        deepest_branching=max((node.depth for node in inner), default=0),
        pairs={name: sum(len(siblings(tree, name)) for tree in trees) for name in plugins.names("tree_pairs")},
    )


def _beside(name: str, rule: dict[str, Any], problems: list[list[Path]], trees: list[Tree]) -> Verdicts:
    value, right = [], []
    for paths, tree in zip(problems, trees, strict=True):
        labels = label(tree, rule)
        for path in paths:
            own = [labels[node] for node in tree.walk(path.steps)[:-1]]
            if own and not np.isnan(own).all():
                value.append(float(np.nanmean(own)))
                right.append(path.outcome >= 0.5)
    values, good = np.array(value), np.array(right)
    return Verdicts(
        rule=name, right=float(values[good].mean()), wrong=float(values[~good].mean()), auc=auc(values, good)
    )
