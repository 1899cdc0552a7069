"""abstention: a right answer, a wrong one and an honest "I don't know" have a number each.

Abstained means that the final answer, or a text without one, is one of the phrases; a reply that says both "I am not
sure" and an answer has answered. Auto-CEI's reward by effort in a chain is the preset `abstention` of `rmkit.shaping`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer, marked_answer, same_answer
from rmkit.verifiers.verifier import each, gold

PHRASES = (
    "i don't know", "i do not know", "i don’t know", "i cannot answer", "i can't answer", "i am not sure",
    "i'm not sure", "unknown", "cannot be determined", "not enough information", "insufficient information",
    "unanswerable",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """Unscored without a reference. A reference that is itself such a phrase makes abstaining right.

    With a `slope` abstaining earns tanh(slope (n - center) / 2) instead, n being the text's lines (Auto-CEI): early
    refusals cost, late ones pay.
    """

    right: float = 1.0
    abstained: float = 0.0
    wrong: float = -1.0
    slope: float = 0.0
    center: float = 0.0
    phrases: Annotated[tuple[str, ...], "what counts as abstaining, in any case"] = PHRASES

    revision: ClassVar[int] = 1

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> Score:
        reference = gold(item)
        if abstains(text, self.phrases):
            unanswerable = abstains(reference, self.phrases)
            return Score(self.right if unanswerable else self._refusal(text), rationale="abstained")
        if same_answer(final_answer(text), final_answer(reference)):
            return Score(self.right, rationale="right")
        return Score(self.wrong, rationale="wrong")

    def _refusal(self, text: str) -> float:
        if not self.slope:
            return self.abstained
        n = sum(bool(line.strip()) for line in text.splitlines())
        return math.tanh(self.slope * (n - self.center) / 2)


def abstains(text: str, phrases: Sequence[str] = PHRASES) -> bool:
    """Whether the final answer, or the text where it marks none, says that there is none."""
    answer = marked_answer(text)
    spoken = (final_answer(text) if answer is None else answer).casefold()
    return any(phrase.casefold() in spoken for phrase in phrases)
