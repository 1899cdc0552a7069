"""From a batch of candidates to one flat list of (prompt, completion) and back: what pointwise models share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmkit.chat.steps import NO_TEXT
from rmkit.types import Candidates, Completion, Conversation, RewardModel, Score

Item = tuple[Conversation, Completion]

WINDOW = 512  # items that go to a model together: bounds memory, and how far a result may lag behind its input


def stream_scores(model: RewardModel, items: Iterable[Candidates], *, window: int = WINDOW) -> Iterator[list[Score]]:
    """Scores of any number of items in their order from any reward model, holding no more than `window` of them."""
    iterator = iter(items)
    while chunk := list(islice(iterator, window)):
        yield from model.score(chunk)


def score_each(batch: Sequence[Candidates], values: Callable[[list[Item]], NDArray[np.float64]]) -> list[list[Score]]:
    """[P][N] scores from a function that gives one number per item, [n], or its value and T draws of it, [n, 1 + T].

    A completion without any assistant text is unscored (a reward for nothing would be made up), and so is one whose
    number is not finite; neither affects the others.
    """
    scored: list[list[Score]] = _each(
        batch, values, lambda result: spread_score(result) if isinstance(result, list) else finite_score(result)
    )
    return scored


def score_outputs(
    batch: Sequence[Candidates], values: Callable[[list[Item]], NDArray[np.float64]], *, n: int
) -> list[list[list[Score]]]:
    """[K][P][N] scores of K = n heads from a function that gives [n, K] numbers; failures as in `score_each`."""
    result = _each(batch, values, lambda outputs: [finite_score(value) for value in outputs])
    return [[[one if isinstance(one, Score) else one[head] for one in row] for row in result] for head in range(n)]


def _each(batch: Sequence[Candidates], values: Callable[[list[Item]], Any], read: Callable[[Any], Any]) -> Any:
    flat = [(candidates.prompt, completion) for candidates in batch for completion in candidates.completions]
    present = [index for index, (_, completion) in enumerate(flat) if completion.text.strip()]
    scores: list[Any] = [Score.failed(NO_TEXT)] * len(flat)
    if present:
        for index, result in zip(present, values([flat[i] for i in present]).tolist(), strict=True):
            scores[index] = read(result)
    remaining = iter(scores)
    return [[next(remaining) for _ in candidates.completions] for candidates in batch]


def finite_score(value: float, *, std: float | None = None) -> Score:
    """The score of a number; unscored where it is not finite."""
    if not math.isfinite(value):
        return Score.failed(f"the model gave {value}, not a finite number")
    return Score(value, std=std)


def spread_score(outputs: Sequence[float]) -> Score:
    """The score of a value followed by T >= 2 draws: `std` is their standard deviation (over T - 1)."""
    value, *draws = outputs
    finite = all(map(math.isfinite, draws))
    return finite_score(value if finite else math.nan, std=statistics.stdev(draws) if finite else None)


def prompt_text(prompt: Conversation) -> str:
    """The conversation as plain text, one `role: content` paragraph per turn."""
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)
