"""Labels of the steps of each response, by a rule over the tree of all responses of its row.

The rows of the result are of kind steps. What a rule knows nothing of has no label; a response none of whose steps has
one gives no row. Rules are listed in docs/trees.md; their options follow the name: `rule = {use = "mean", low = 0}`.

Of a trajectory every turn of the assistant has its label as the rating `turn N`, as people's grades have. A turn that
says something is a step, too; one that only calls tools has no place in the text, and what it did to the state shows in
the label of the next turn that has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from data_pipelines.algorithms.trees import OUTCOME, Reading, tree_to_convert
from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.trees.rules import label_rule


@dataclass(frozen=True, kw_only=True)
class Config(Reading):
    rule: Annotated[str, "the label rule"] = "mean"
    options: Annotated[dict[str, Any], "the rule's own options"] = field(default_factory=dict)
    continuations: Annotated[bool, "label what was sampled from a prefix, too"] = False
    until_error: Annotated[bool, "no label behind the first step whose label is 0"] = False
    last_only: Annotated[bool, "a label for the last step alone: what an outcome model with this head learns"] = False

    def __post_init__(self) -> None:
        label_rule({"use": self.rule, **self.options}, trusted=True)


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """A row of kind steps for each response that has a label; its outcome goes along as the rating `correct`."""
    result = tree_to_convert(example, config)
    values = label_rule({"use": config.rule, **config.options}, trusted=True).label(result.tree)
    seen: set[tuple[int, ...]] = set()
    for at, nodes in enumerate(result.at):
        if not (result.whole[at] or config.continuations) or nodes in seen:
            continue
        own = [None if math.isnan(values[node]) else round(float(values[node]), 12) for node in nodes]
        labels = _limited([own[place] for place in result.placed[at]], config)
        turns = _limited(own, config) if result.turns else []
        if all(label is None for label in (*labels, *turns)):
            continue
        seen.add(nodes)
        scores = [] if math.isnan(result.outcome[at]) else [(0, OUTCOME, result.outcome[at])]
        scores += [(0, f"turn {n}", label) for n, label in enumerate(turns, start=1) if label is not None]
        steps = any(label is not None for label in labels)
        yield Derived(
            kind="steps" if steps else "single",
            responses=[example["responses"][at]],
            origins=[at],
            step_ends=[result.ends[at]] if steps else None,
            step_labels=labels if steps else None,
            scores=scores,
        )
    if not seen:
        raise NotConvertibleError("the rule knows nothing of its steps")


def _limited(labels: list[float | None], config: Config) -> list[float | None]:
    """Without those that the settings leave out."""
    labels = list(labels)
    if config.last_only:
        labels[:-1] = [None] * (len(labels) - 1)
    if config.until_error and 0 in labels:
        first = labels.index(0)
        labels[first + 1 :] = [None] * (len(labels) - first - 1)
    return labels
