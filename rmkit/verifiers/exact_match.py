"""exact_match: 1 where the completion's final answer is the reference in its normal form or as a number, else 0.

Needs no other package; `answer` also knows that x + 1 is 1 + x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer, same_answer
from rmkit.verifiers.verifier import each, gold


@dataclass(frozen=True, kw_only=True)
class ExactMatch:
    """Takes no options. Unscored without a reference."""

    revision: ClassVar[int] = 2

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, lambda item, text: float(same_answer(final_answer(text), final_answer(gold(item)))))
