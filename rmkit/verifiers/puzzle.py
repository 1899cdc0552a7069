"""puzzle: reasoning-gym's own score of an answer, in [0, 1], by the solver of the puzzle's data set.

The reference is the data set's entry as JSON, `metadata.source_dataset` in it (as `dataset[i]` gives it). The final
answer of the completion is what is scored. Scoring runs in processes of its own with a time limit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

from rmkit.errors import ConfigError, DataError, require
from rmkit.types import Candidates, Score
from rmkit.verifiers.answer_text import final_answer
from rmkit.verifiers.process_pool import Outcome, shared_pool
from rmkit.verifiers.verifier import gold


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """Unscored without an entry, for an unknown data set, and where scoring fails or takes too long."""

    timeout_s: Annotated[float, "seconds that one answer may take"] = 10.0

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s must be positive, got {self.timeout_s}")
        require("reasoning_gym", extra="verifiers")

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        requests: list[tuple[str, str]] = []
        failures: list[str | None] = []
        for item in items:
            try:
                _entry(gold(item))
                failures.append(None)
                requests += [(gold(item), final_answer(one.text)) for one in item.completions]
            except DataError as error:
                failures.append(str(error))
        outcomes = iter(
            shared_pool("rmkit.verifiers.puzzle:scored").map(requests, timeout_s=self.timeout_s) if requests else []
        )
        return [
            [_score(next(outcomes)) if failure is None else Score.failed(failure) for _ in item.completions]
            for item, failure in zip(items, failures, strict=True)
        ]


def _score(outcome: Outcome) -> Score:
    if outcome.failure is not None:
        return Score.failed(f"the puzzle could not be scored: {outcome.failure}")
    return Score(float(outcome.value))


def _entry(reference: str) -> tuple[str, dict[str, object]]:
    try:
        entry = json.loads(reference)
        return str(entry["metadata"]["source_dataset"]), entry
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("the reference is no entry of reasoning-gym with metadata.source_dataset") from error


def scored(reference: str, answer: str) -> float:
    """The answer's score by its data set. In a worker."""
    name, entry = _entry(reference)
    return float(_dataset(name).score_answer(answer=answer, entry=entry))


@cache
def _dataset(name: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, size=1, seed=0)
