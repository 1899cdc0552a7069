"""tags: the format reward, for a completion that holds each of the tags once.

strict      1 where the whole text is <think>...</think><answer>...</answer> with blanks between, else 0
share       (tags that open and close exactly once) / (all tags), whatever stands around them
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from rmkit.errors import ConfigError
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import each


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Needs no reference."""

    tags: Annotated[tuple[str, ...], "names of the tags in order"] = ("think", "answer")
    rule: Annotated[Literal["strict", "share"], "all in order and nothing else, or the share that is there once"] = (
        "strict"
    )

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.tags or not all(re.fullmatch(r"[\w-]+", tag) for tag in self.tags):
            raise ConfigError(f"tags are names of letters, digits, - and _, got {self.tags}")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, _: Candidates, text: str) -> float:
        once = [text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1 for tag in self.tags]
        if self.rule == "share":
            return sum(once) / len(once)
        return float(all(once) and self._in_order(text))

    def _in_order(self, text: str) -> bool:
        """Each tag closes before the next one opens and only blanks stand outside; no pattern, so nothing can stall."""
        place = 0
        for tag in self.tags:
            start, end = text.find(f"<{tag}>"), text.find(f"</{tag}>")
            if start < place or end < start or text[place:start].strip():
                return False
            place = end + len(tag) + 3
        return not text[place:].strip()
