"""UPO's candidates: of each list of scored responses, pairs of one from the upper half against one from the lower.

A random share of all such pairs with different scores, and always the best response against the worst: its margin is
the prompt's largest. Draws depend on seed and unit alone. Sun et al., arXiv:2409.11212.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np

from data_pipelines.algorithms.responses import rewards_of
from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "the score to go by, such as a reward model's name; none is the only one, or the rank"] = ""
    share: Annotated[float, "share of the pairs that are drawn"] = 0.25
    seed: Annotated[int, "of the draws"] = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"upper_lower: share lies in (0, 1], got {self.share}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Pairs whose margin is the difference of the scores."""
    rewards = rewards_of(example, config.aspect)
    if rewards is None:
        raise NotConvertibleError("not every response has a score")
    order = np.argsort(np.negative(rewards), kind="stable").tolist()
    half = len(order) // 2
    pairs = [(i, j) for i, j in product(order[:half], order[len(order) - half :]) if rewards[i] > rewards[j]]
    if not pairs:
        raise NotConvertibleError("no two responses with different scores")
    key = hashlib.sha256(f"{config.seed} {example['unit']}".encode()).digest()[:8]
    drawn = np.random.default_rng(int.from_bytes(key)).permutation(len(pairs))[: round(config.share * len(pairs))]
    chosen = [pairs[at] for at in sorted(drawn.tolist())]
    extremes = (order[0], order[-1])
    scores = example["scores"] or []
    for i, j in dict.fromkeys([*chosen, extremes]):
        yield Derived(
            kind="pair",
            responses=[example["responses"][at] for at in (i, j)],
            origins=[i, j],
            p=[1.0, 0.0],
            ranks=[0, 1],
            margin=rewards[i] - rewards[j],
            scores=[
                (place, one["aspect"], one["value"])
                for place, at in enumerate((i, j))
                for one in scores
                if one["response"] == at
            ],
            n_votes=0,
        )
