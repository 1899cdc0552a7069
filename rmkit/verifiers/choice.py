r"""choice: 1 where the completion settles on the letter of the right option, else 0.

A letter is read from \boxed{B}, <answer>B</answer>, "the answer is (B)", "B." at the end or as the whole reply; several
letters ("A, C") are a set. A reference is a letter, or the number of an option from 0 where `numbered` says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from rmkit.errors import ConfigError, DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer, marked_answer
from rmkit.verifiers.verifier import each, gold

_SEVERAL = r"([a-z](?:\s*(?:,|and|&)\s*[a-z])*)"
_MARKED = re.compile(rf"^(?:option|choice)?\s*[(\[*]*{_SEVERAL}(?![\w'])", re.IGNORECASE)
_BARE = re.compile(rf"^(?:option|choice)?\s*[(\[*]*{_SEVERAL}\s*(?:[)\]*.:]|$)", re.IGNORECASE)
_STANDING = re.compile(r"(?<![\w'])([A-Z])(?![\w'])(?!\s+[a-z])")  # not the article: "A man"
_LETTER = re.compile(r"[a-z]")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Unscored without a reference, and where that is no option. A reply that settles on none is wrong."""

    options: Annotated[int, "how many options there are, lettered from A"] = 4
    numbered: Annotated[bool, "references are numbers of options from 0"] = False

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 2 <= self.options <= 26:
            raise ConfigError(f"options must be in 2 ... 26, got {self.options}")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return each(items, lambda item, text: float(self._letters(text) == self._target(gold(item))))

    def _target(self, reference: str) -> frozenset[str]:
        if self.numbered:
            if not reference.strip().isdigit() or int(reference) >= self.options:
                raise DataError(
                    f"the reference {reference[:20]!r} is no number of an option in 0 ... {self.options - 1}"
                )
            return frozenset(chr(ord("a") + int(reference)))
        if not (letters := self._letters(reference)):
            last = chr(ord("A") + self.options - 1)
            raise DataError(f"the reference {reference[:20]!r} names no option in A ... {last}")
        return letters

    def _letters(self, text: str) -> frozenset[str]:
        answer = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*", "", final_answer(text)).strip("{}$ \n")
        marked = marked_answer(text) is not None
        if match := (_MARKED if marked else _BARE).match(answer):
            first = match[1]
        elif not marked and (standing := [one for one in _STANDING.findall(answer) if self._is_option(one)]):
            first = standing[-1]
        else:
            return frozenset()
        letters = frozenset(_LETTER.findall(re.sub(r"\band\b", " ", first.casefold())))
        return letters if all(map(self._is_option, letters)) else frozenset()

    def _is_option(self, letter: str) -> bool:
        return ord(letter.casefold()) - ord("a") < self.options
