r"""answer: 1 where the completion's final answer means what the reference does, by math-verify, else 0.

Two numbers are compared here; everything else goes to math-verify (Kydlíček et al. 2025) in processes of their own. A
reference that is no mathematics ("No", \text{A}) leaves its completions unscored: `choice` and `exact_match` compare
words.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, ClassVar

from rmkit.errors import ConfigError, DataError, require
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer, marked_answer, normal, number_in, same_answer
from rmkit.verifiers.process_pool import Outcome, shared_pool
from rmkit.verifiers.verifier import gold

LONGEST = 4000  # characters of a completion's end that are searched where it marks no answer
_MATHEMATICAL = re.compile(r"[0-9=<>^+*/√∞π]|\\(?!text|mathrm|mathbf)[a-zA-Z]+")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Unscored without a reference, and where the reference cannot be read as mathematics."""

    timeout_s: Annotated[float, "seconds that one comparison may take"] = 5.0
    digits: Annotated[int, "decimal places to which numbers are compared"] = 6

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.timeout_s > 0 or self.digits < 0:
            raise ConfigError(f"timeout_s must be positive and digits at least 0, got {self.timeout_s}, {self.digits}")
        require("math_verify", extra="verifiers")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        results: list[list[Score]] = []
        tasks: dict[tuple[str, str], list[tuple[list[Score], int]]] = {}  # what math-verify is asked, and for whom
        for item in items:
            results.append([])
            for completion in item.completions:
                score = self._at_once(item, completion.text)
                if isinstance(score, tuple):
                    tasks.setdefault(score, []).append((results[-1], len(results[-1])))
                    score = Score.failed("not compared")
                results[-1].append(score)
        if tasks:
            pool = shared_pool("rmkit.verifiers.answer:compared")
            outcomes = pool.map([(*task, self.digits) for task in tasks], timeout_s=self.timeout_s)
            for (reference, _), places, outcome in zip(tasks, tasks.values(), outcomes, strict=True):
                for row, place in places:
                    row[place] = _score(outcome, reference)
        return results

    def _at_once(self, item: Candidates, text: str) -> Score | tuple[str, str]:
        """The score of what needs no math-verify, else what it is to compare."""
        try:
            reference = final_answer(gold(item))
        except DataError as error:
            return Score.failed(str(error))
        answer = final_answer(text)
        target, got = number_in(normal(reference)), number_in(normal(answer))
        if target is not None and got is not None and "%" not in reference + answer:
            return Score(float(_rounded(target, self.digits) == _rounded(got, self.digits)))
        return reference, (f"${answer}$" if marked_answer(text) else answer)[-LONGEST:]


def _rounded(number: Fraction, digits: int) -> Fraction:
    return round(number, digits)


def _score(outcome: Outcome, reference: str) -> Score:
    if outcome.failure is not None:
        return Score.failed(f"the answers could not be compared: {outcome.failure}")
    if outcome.value is None:
        return Score.failed(f"the reference answer {reference[:40]!r} cannot be read as mathematics")
    return Score(float(outcome.value))


def warm_up() -> None:
    """What a worker does before its first task: sympy is imported by parts, as they are needed."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of each call without its own time limit
    for reference, answer in (
        ("x+1", "$1+x$"),
        ("x<3", "$(-\\infty,3)$"),
        ("\\{1,2\\}", "$\\{2,1\\}$"),
        ("(1,2)", "$(1,3)$"),
    ):
        compared(reference, answer, 6)


def compared(reference: str, answer: str, digits: int) -> bool | None:
    """Whether an answer means what the reference does; None for a reference that is no mathematics. In a worker."""
    from math_verify import verify

    target = _parsed_reference(reference)
    if not target:
        return None
    if same_answer(reference, answer.strip("$")):
        return True
    return bool(verify(target, _parsed(answer), float_rounding=digits, timeout_seconds=None, raise_on_error=True))


@cache
def _parsed_reference(reference: str) -> list[object]:
    if not _MATHEMATICAL.search(reference):
        return []
    readings = (_parsed(f"${reference}$"), _parsed(reference))
    return next((one for one in readings if any(not isinstance(part, str) for part in one)), [])


def _parsed(text: str) -> list[object]:
    from math_verify import parse

    parsed: list[Any] = parse(text, parsing_timeout=None)
    return parsed
