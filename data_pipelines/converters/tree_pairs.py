"""Pairs of completions that share their prefix and part at one step, by a rule over the tree of all responses of a row.

The confidence of a rule becomes the soft label. Both sides end behind the step that is compared, so that what they
share is scored once (and cancels in DPO). Rules are listed in docs/trees.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from data_pipelines.algorithms.trees import Reading, completion_of, tree_to_convert
from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.trees.rules import pair_rule


@dataclass(frozen=True, kw_only=True)
class Config(Reading):
    rule: Annotated[str, "the pair rule"] = "by_value"
    options: Annotated[dict[str, Any], "the rule's own options"] = field(default_factory=dict)
    confidence: Annotated[bool, "soft labels by the rule's confidence; else the better one is better"] = True

    def __post_init__(self) -> None:
        pair_rule({"use": self.rule, **self.options}, trusted=True)


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """(chosen, rejected) with p = [p, 1 - p]."""
    result = tree_to_convert(example, config)
    pairs = pair_rule({"use": config.rule, **config.options}, trusted=True).siblings(result.tree)
    if not pairs:
        raise NotConvertibleError("the rule gives no pair")
    known = {text: at for at, text in enumerate(example["responses"])}
    for pair in pairs:
        sides = [completion_of(result.tree, node, turns=result.turns) for node in (pair.chosen, pair.rejected)]
        texts = [text for text, _ in sides]
        p = pair.p if config.confidence else 1.0
        yield Derived(
            kind="pair",
            responses=texts,
            origins=[known.get(text) for text in texts],
            step_ends=None if result.turns else [ends for _, ends in sides],
            p=[p, 1 - p],
            ranks=[0, 1] if p > 0.5 else [0, 0],
            weight=pair.weight,
        )
