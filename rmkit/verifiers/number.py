"""number: 1 where the completion's final number is the reference within a tolerance, else 0 (or a falling share).

    |x - y| <= absolute + relative |y|          partial credit: max(0, 1 - |x - y| / (scale |y| + absolute))

The number is the final answer's last one; units beside it are not compared. A reply without a number is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar

from rmkit.errors import ConfigError, DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer, normal, number_in
from rmkit.verifiers.verifier import each, gold

_IN_TEXT = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[+-]?\d{1,3})?(?:/\d+)?%?", re.I)


@dataclass(frozen=True, kw_only=True)
class Number:
    """Unscored without a reference, and where the reference holds no number."""

    relative: Annotated[float, "tolerated share of the reference"] = 0.0
    absolute: Annotated[float, "tolerated difference"] = 1e-9
    scale: Annotated[float, "share of the reference at which partial credit ends; 0 gives none"] = 0.0

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not (self.relative >= 0 and self.absolute >= 0 and self.scale >= 0):
            raise ConfigError("relative, absolute and scale must be at least 0")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> float:
        target = _last_number(gold(item))
        if target is None:
            raise DataError("the reference holds no number")
        got = _last_number(text)
        if got is None:
            return 0.0
        distance = abs(got - target)
        if distance <= Fraction(self.absolute) + Fraction(self.relative) * abs(target):
            return 1.0
        room = Fraction(self.scale) * abs(target) + Fraction(self.absolute)
        return max(0.0, float(1 - distance / room)) if self.scale else 0.0


def _last_number(text: str) -> Fraction | None:
    answer = final_answer(text)
    if (whole := number_in(normal(answer))) is not None:
        return whole
    parts = [match[0] for match in _IN_TEXT.finditer(answer) if any(map(str.isdigit, match[0]))]
    return number_in(parts[-1]) if parts else None
