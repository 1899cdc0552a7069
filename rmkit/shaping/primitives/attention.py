"""Multipliers of token credit from two attention rhythms (arXiv:2510.13554), 1 where nothing stands out.

The trainer brings per token `distance` (WAAD, the windowed mean attention distance) and `influence` (FAI, the mean
attention that later tokens pay to it). The `share` of tokens with the largest jump |d_t - d_{t+1}| are preplan tokens,
the `share` with the largest influence are anchors (linear quantiles within the completion).

    local     amplitude on preplan tokens
    global    amplitude on anchors
    coupled   amplitude on anchors; an anchor whose distance is at most `near`, with a jump of at least `jump` among the
              `window` tokens before it, gives the share `back` of its bonus to the largest of those jumps
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from rmkit.errors import ConfigError
from rmkit.shaping.group import Column, Floats, Group, Kind
from rmkit.shaping.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Transform):
    anywhere: ClassVar[bool] = True

    column: Annotated[str, "per token the windowed mean attention distance"] = "distance"
    into: Annotated[str, "the multipliers that it writes"] = "multiplier"
    influence: Annotated[str, "per token the mean attention paid by later ones"] = "influence"
    how: Annotated[Literal["local", "global", "coupled"], "which tokens"] = "coupled"
    share: Annotated[float, "of the tokens that stand out"] = 0.4
    amplitude: Annotated[float, "their multiplier"] = 1.5
    window: Annotated[int, "how many tokens before an anchor"] = 3
    back: Annotated[float, "the part of the bonus that goes to the jump before"] = 0.5
    near: Annotated[float, "the largest distance of an anchor that gives"] = 0.0
    jump: Annotated[float, "the smallest jump that receives"] = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 <= self.back <= 1 or self.window < 1:
            raise ConfigError(
                "expected share in (0, 1], back in [0, 1] and window of at least 1, got "
                f"{self.share}, {self.back}, {self.window}"
            )

    @property
    def needs(self) -> dict[str, Kind]:
        columns = [*([self.column] if self.how != "global" else []), *([self.influence] if self.how != "local" else [])]
        return dict.fromkeys(columns, "list")

    def result(self, group: Group) -> Column:
        shape = group.number(next(iter(self.needs)))
        assert shape.lengths is not None
        values = {name: group.aligned(name, shape) for name in self.needs}
        result = np.ones(len(shape.values))
        for end, length in zip(shape.ends, shape.lengths, strict=True):
            row = slice(end - length, end)
            result[row] = self._multipliers({name: one[row] for name, one in values.items()}, int(length))
        return shape.over(result)

    def _multipliers(self, row: dict[str, Floats], length: int) -> Floats:
        result, bonus = np.ones(length), self.amplitude - 1
        jumps = np.full(length, -np.inf)
        if self.how != "global" and length > 1:
            jumps[:-1] = np.nan_to_num(np.abs(np.diff(row[self.column])), nan=-np.inf)
        if self.how == "local":
            return result + bonus * _top(jumps[:-1], self.share, length)
        anchors = np.flatnonzero(_top(row[self.influence], self.share, length))
        result[anchors] += bonus
        if self.how == "coupled":
            for anchor in anchors:
                before = jumps[max(anchor - self.window, 0) : anchor]
                if len(before) and row[self.column][anchor] <= self.near and before.max() >= self.jump:
                    result[anchor] -= self.back * bonus
                    result[anchor - len(before) + int(before.argmax())] += self.back * bonus
        return result


def _top(values: Floats, share: float, length: int) -> Floats:
    """1 for the share of the largest values, else 0, over `length` places."""
    result = np.zeros(length)
    known = values[np.isfinite(values)]
    if len(known):
        result[: len(values)] = values >= np.quantile(known, 1 - share)
    return result
