"""citations: what a completion quotes must stand in its sources.

Sources are the reference: a JSON list of texts, an object of texts by name, or one text. A citation is a quotation in
straight or typographic quotes followed by its source in brackets, "..." [2] or "..." [name]; without brackets it may
stand in any source. The value is the share of citations that stand there word for word (case and blanks aside).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from rmkit.errors import ConfigError, DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import each, gold

_QUOTED = re.compile(r"[\"“]([^\"“”\n]{1,2000})[\"”](?:\s{0,3}[\[(]([\w .-]{1,80})[\])])?")


@dataclass(frozen=True, kw_only=True)
class Citations:
    """Unscored without sources. A completion that quotes nothing has `absent`."""

    least: Annotated[int, "so many citations are expected; missing ones count as wrong"] = 1
    min_words: Annotated[int, "a quotation of fewer words is no citation"] = 3
    absent: Annotated[float, "value of a completion without citations where none are expected"] = 1.0

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.least < 0 or self.min_words < 1:
            raise ConfigError(f"expected least >= 0 and min_words >= 1, got {self.least}, {self.min_words}")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, self._check)

    def _check(self, item: Candidates, text: str) -> Score:
        sources = _sources(gold(item))
        cited = [(quote, name) for quote, name in _QUOTED.findall(text) if len(quote.split()) >= self.min_words]
        right = [bool(_stands(quote, name.strip().casefold(), sources)) for quote, name in cited]
        total = max(len(cited), self.least)
        if not total:
            return Score(self.absent)
        return Score(sum(right) / total, rationale=f"{sum(right)} of {len(cited)} citations stand in their source")


def _stands(quote: str, name: str, sources: dict[str, str]) -> bool:
    target = _plain(quote)
    if name:
        return target in sources.get(name, "")
    return any(target in source for source in sources.values())


def _sources(reference: str) -> dict[str, str]:
    try:
        value = json.loads(reference)
    except (ValueError, RecursionError):
        value = [reference]
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        value = {str(number): text for number, text in enumerate(value, 1)}
    if not isinstance(value, dict) or not value or not all(isinstance(text, str) for text in value.values()):
        raise DataError("sources are a list of texts, an object of texts by name, or a text")
    return {str(name).casefold(): _plain(text) for name, text in value.items()}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:…")
