"""Plans as rows: what stands before the reasoning, worth the mean outcome of the rollouts below it (PTA-GRPO).

A plan is what `pattern` finds in a response. Responses with the same plan are its rollouts; for rollouts below a shared
prefix the label rule `plan` says the same (docs/trees.md).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.algorithms.responses import ranks_of
from data_pipelines.converters import Derived, Example, NotConvertibleError, ratings
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message, parse_messages
from rmkit.types import Completion


@dataclass(frozen=True, kw_only=True)
class Config:
    pattern: Annotated[str, "a regular expression with the plan as its first group"] = r"(?s)<plan>(.*?)</plan>"
    aspect: Annotated[str, "the rating that is the outcome"] = "correct"

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigError(f"plans: pattern {self.pattern!r} is no regular expression: {error}") from None
        if groups < 1:
            raise ConfigError(f"plans: pattern {self.pattern!r} has no group for the plan")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """One unit: the distinct plans, ranked by the mean outcome of their rollouts."""
    outcomes: defaultdict[str, list[float]] = defaultdict(list)
    for text, outcome in zip(example["responses"], ratings(example, config.aspect), strict=True):
        match = re.search(config.pattern, Completion(parse_messages(text)).text)
        if match and match[1].strip() and not math.isnan(outcome):
            outcomes[match[1].strip()].append(outcome)
    if not outcomes:
        raise NotConvertibleError("no plan with an outcome")
    values = [sum(rewards) / len(rewards) for rewards in outcomes.values()]
    known = {text: at for at, text in enumerate(example["responses"])}
    texts = [assistant_message(plan) for plan in outcomes]
    yield Derived(
        responses=texts,
        origins=[known.get(text) for text in texts],
        ranks=ranks_of(values) if len(texts) > 1 else None,
        scores=[(at, config.aspect, value) for at, value in enumerate(values)],
        n_votes=0,
        meta={"rollouts": [len(rewards) for rewards in outcomes.values()]},
    )
