"""Weighted pairs from rule levels: every lower level beats every higher one of its group (TRPA).

    levels 1 right, 2 wrong, 3 unparsable, 4 bad format        all pairs of different levels, at most `cap` of a group
    margin = right_weight where the winner is right, else 1    what the objective scaled_margin multiplies by

Train with `rmkit train implicit --set objective=scaled_margin`. The cap is inferred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError, ratings
from rmkit.errors import ConfigError
from rmkit.shaping.pairs import level_pairs


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "the rating that holds the level, 1 being right"] = "level"
    right_weight: Annotated[float, "factor of the margin where the winner is right"] = 2.5
    cap: Annotated[int, "pairs of a group at most, drawn evenly"] = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cap < 1 or self.right_weight <= 0:
            raise ConfigError(f"levels: cap and right_weight must be positive, got {self.cap}, {self.right_weight}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Pairs (winner, loser) with p = [1, 0] and the factor as margin. A response without a level is in none."""
    levels = [None if math.isnan(level) else level for level in ratings(example, config.aspect)]
    pairs = level_pairs(levels, right_weight=config.right_weight, cap=config.cap, seed=config.seed)
    if not pairs:
        raise NotConvertibleError("all responses are of one level")
    for pair in pairs:
        places = (pair.winner, pair.loser)
        yield Derived(
            responses=[example["responses"][at] for at in places],
            origins=places,
            p=[1.0, 0.0],
            ranks=[0, 1],
            margin=pair.weight,
            n_votes=0,
        )
