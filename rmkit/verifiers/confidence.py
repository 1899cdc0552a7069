"""confidence: how well a completion's stated confidence p fits what came of it, the answer being right (c = 1) or not.

    brier     1 - (p - c)^2          proper: honest confidence has the highest expectation (Brier 1950)
    signed    p if right, -p if not
    value     p alone, whatever came of it; needs no reference

Read from <confidence>0.8</confidence>, "confidence: 80%" or "I am 80% sure"; the last one counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from rmkit.errors import DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer, same_answer
from rmkit.verifiers.verifier import each, gold

_STATED = re.compile(
    r"<confidence>\s*(?P<tag>[\d.]{1,8})\s*(?P<p0>%?)\s*</confidence>"
    r"|\bconfidence\s*(?:is|:|=|of)?\s*(?P<named>\d{1,3}(?:\.\d{1,6})?|\.\d{1,6})\s*(?P<p1>%?)"
    r"|\b(?P<sure>\d{1,3}(?:\.\d{1,6})?)\s*(?P<p2>%)\s*(?:sure|certain|confident)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Unscored without a reference (but for `value`), and where no confidence in [0, 1] is stated."""

    rule: Annotated[Literal["brier", "signed", "value"], "how confidence becomes a number"] = "brier"
    absent: Annotated[float | None, "number of a completion that states none; without it that is unscored"] = None

    revision: ClassVar[int] = 1

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> float:
        if self.rule != "value":
            reference = gold(item)
        p = stated_confidence(text)
        if p is None:
            if self.absent is None:
                raise DataError("the completion states no confidence")
            return self.absent
        if self.rule == "value":
            return p
        right = same_answer(final_answer(_STATED.sub("", text)), final_answer(reference))
        if self.rule == "signed":
            return p if right else -p
        return 1 - (p - right) ** 2


def stated_confidence(text: str) -> float | None:
    """The last stated confidence in [0, 1]; a percentage where it says so or is above 1. None where there is none."""
    stated = None
    for match in _STATED.finditer(text):
        stated = match
    if stated is None:
        return None
    try:
        p = float(stated["tag"] or stated["named"] or stated["sure"])
    except ValueError:
        return None
    if stated["p0"] or stated["p1"] or stated["p2"] or p > 1:
        p /= 100
    return p if 0 <= p <= 1 else None
