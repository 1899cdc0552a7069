"""What the outputs of an explicit model that learned ratings or reactions mean.

A sequence classifier gives one output z_a per aspect a. On the rating scale that is

    regression    rating_a = mean_a + std_a z_a                          mean and std of the training ratings
    ordinal       rating_a = l_0 + sum_k (l_(k+1) - l_k) sigmoid(z_a - c_k)     the expected level; l levels, c cuts
    reaction      one aspect; z is the logit of the reaction itself, its probability is kept under the aspect's name

The value of a Score is the weighted mean of the aspects' ratings (scale `rating`), or the logit (scale `logit`); all
aspects are kept in `Score.aspects`. For independent reactions P(first liked | exactly one is) is sigmoid(z_1 - z_2), so
the Bradley-Terry link holds for logits of reactions as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rmkit.errors import ConfigError
from rmkit.types import Scale, Score, sigmoid

HeadKind = Literal["regression", "ordinal", "reaction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingHead:
    """One entry per aspect in every tuple; `weights` add up to 1. Of mean and std, levels and cuts, those of the other
    kinds are empty. `cuts` are learned; before training, where they start."""

    kind: HeadKind
    aspects: tuple[str, ...]
    weights: tuple[float, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    cuts: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.aspects or len(self.weights) != len(self.aspects):
            raise ConfigError(f"{len(self.weights)} aspect weights for {len(self.aspects)} aspects; give one for each")

    @property
    def scale(self) -> Scale:
        return "logit" if self.kind == "reaction" else "rating"

    def ratings(self, outputs: Sequence[float]) -> list[float]:
        """[A] ratings on the data's own scales (for reactions: the probability) from [A] outputs of the classifier."""
        match self.kind:
            case "regression":
                return [m + s * z for m, s, z in zip(self.mean, self.std, outputs, strict=True)]
            case "ordinal":
                return [_expected(*of) for of in zip(outputs, self.levels, self.cuts, strict=True)]
            case "reaction":
                return [sigmoid(z) for z in outputs]

    def value(self, outputs: Sequence[float]) -> float:
        """The reward: the weighted mean of the ratings, or the logit of the reaction."""
        if self.kind == "reaction":
            return outputs[0]
        return math.fsum(w * rating for w, rating in zip(self.weights, self.ratings(outputs), strict=True))

    def score(self, outputs: Sequence[float]) -> Score:
        """The Score of one completion; unscored where an output is not finite."""
        if not all(map(math.isfinite, outputs)):
            return Score.failed(f"the model gave {list(outputs)}, not finite numbers")
        ratings = self.ratings(outputs)
        return Score(self.value(outputs), aspects=dict(zip(self.aspects, ratings, strict=True)))

    def as_json(self) -> dict[str, object]:
        """What the artifact stores."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> RatingHead:
        """The head that `as_json` wrote."""
        lists: dict[str, Any] = {key: tuple(stored[key]) for key in ("aspects", "weights", "mean", "std")}
        tables: dict[str, Any] = {key: tuple(tuple(row) for row in stored[key]) for key in ("levels", "cuts")}
        return cls(kind=stored["kind"], **lists, **tables)


def _expected(z: float, levels: Sequence[float], cuts: Sequence[float]) -> float:
    steps = zip(levels, levels[1:], cuts, strict=False)
    return levels[0] + math.fsum((above - below) * sigmoid(z - cut) for below, above, cut in steps)
