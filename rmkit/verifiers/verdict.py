"""verdict: is a judge's verdict the right letter? 1 right, 0 wrong, -1 where it cannot be read (the format reward).

The reference is A or B. Verdicts are read as those of judges are: the last line, "Verdict: A".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rmkit.errors import DataError
from rmkit.generate.request import Sample
from rmkit.judge.verdict import read_pair
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import each, gold


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Unscored where the reference is neither A nor B."""

    right: float = 1.0
    wrong: float = 0.0
    unread: float = -1.0

    revision: ClassVar[int] = 1

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> float:
        reference = gold(item).strip().upper()
        if reference not in ("A", "B"):
            raise DataError("the reference is neither A nor B")
        letter = verdict_of(text)
        return self.unread if letter is None else self.right if letter == reference else self.wrong


def verdict_of(text: str) -> str | None:
    """A or B; None where no verdict can be read."""
    reading = read_pair(Sample(text=text, finish="stop"), ties=False, use_logprobs=False)
    return None if reading.unread else "A" if reading.values[0] > 0.5 else "B"
