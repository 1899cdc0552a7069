"""length: 1 within bounds, falling linearly to 0 over `slack` beyond them; or the plain count, for a mix to weigh.

unit      characters, words, or tokens as about four characters each
count     n itself (with a negative weight in the mix: a cost)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from rmkit.errors import ConfigError
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import each


@dataclass(frozen=True, kw_only=True)
class Length:
    """Needs no reference."""

    unit: Annotated[Literal["characters", "words", "tokens"], "what is counted"] = "characters"
    min: Annotated[int, "fewest that earn 1"] = 0
    max: Annotated[int | None, "most that earn 1"] = None
    slack: Annotated[int, "beyond a bound, over so many it falls to 0"] = 0
    count: Annotated[bool, "the count itself instead"] = False

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.min < 0 or self.slack < 0 or (self.max is not None and self.max < self.min):
            raise ConfigError(f"expected 0 <= min <= max and slack >= 0, got {self.min}, {self.max}, {self.slack}")
        if self.count and (self.min or self.max is not None):
            raise ConfigError("count gives the number itself; it takes no min or max")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, _: Candidates, text: str) -> float:
        n = len(text.split()) if self.unit == "words" else len(text)
        if self.unit == "tokens":
            n = math.ceil(n / 4)
        if self.count:
            return float(n)
        beyond = max(self.min - n, n - (n if self.max is None else self.max), 0)
        return max(0.0, 1 - beyond / self.slack) if self.slack else float(beyond == 0)
