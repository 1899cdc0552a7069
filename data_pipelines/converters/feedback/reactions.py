"""Sparse reactions, thinned: every positive one, and of the negative ones the share `negatives_kept` (RLUF).

Training on the result takes the share into account, so that the reward is the logit of a liked reply among all:
`rmkit train explicit --set objective=reaction --set negatives_kept=SHARE` adds log(SHARE) to the logit it is trained
with. Which negatives stay follows from each row alone. For r negatives to a positive (the paper takes 9) choose
SHARE = r * positives / negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError, ratings
from rmkit.errors import ConfigError
from rmkit.ids import content_hash


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "the rating that is the reaction: 1 loved, 0 not"] = "thumb"
    negatives_kept: Annotated[float, "share of the negative reactions that stay"] = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.negatives_kept <= 1:
            raise ConfigError(f"reactions: negatives_kept is a share in (0, 1], got {self.negatives_kept}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """A unit of kind single for each response with a reaction that stays."""
    values = ratings(example, config.aspect)
    kept = [at for at, value in enumerate(values) if value > 0 or (value == 0 and _stays(example, at, config))]
    if not kept:
        raise NotConvertibleError("a negative reaction that sampling left out")
    for at in kept:
        yield Derived(
            responses=[example["responses"][at]],
            origins=[at],
            scores=[(0, config.aspect, values[at])],
            n_votes=example["n_votes"],
            meta={} if config.negatives_kept == 1 else {"negatives_kept": config.negatives_kept},
        )


def _stays(example: Example, at: int, config: Config) -> bool:
    draw = content_hash(f"{config.seed} {example['unit']} {example['responses'][at]}")
    return int(draw[:16], 16) < config.negatives_kept * 2**64
