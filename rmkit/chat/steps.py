"""Where the steps of a completion end."""

from __future__ import annotations

from dataclasses import replace

from rmkit.errors import DataError
from rmkit.types import Completion

NO_TEXT = "the completion has no assistant text"


def in_steps(completion: Completion, *, separator: str) -> Completion:
    """The completion with its steps marked, split behind each separator where they are not. Raises DataError without
    any assistant text."""
    text = completion.text
    if not text.strip():
        raise DataError(NO_TEXT)
    if completion.step_ends:
        return completion
    ends: list[int] = []
    start = 0
    while (at := text.find(separator, start)) >= 0:
        start = at + len(separator)
        if text[ends[-1] if ends else 0 : start].strip():
            ends.append(start)
    if text[ends[-1] if ends else 0 :].strip():
        ends.append(len(text))
    return replace(completion, step_ends=tuple(ends))


def step_texts(completion: Completion) -> tuple[str, ...]:
    """The texts of the marked steps, each from the end of the one before. Raises DataError where the ends do not cut
    the text into steps with visible text, or leave some of it over."""
    text, ends = completion.text, completion.step_ends
    steps = tuple(text[start:end] for start, end in zip((0, *ends), ends, strict=False))
    if list(ends) != sorted(set(ends)) or not all(step.strip() for step in steps):
        raise DataError("a step has no visible text")
    if not ends or ends[-1] > len(text) or text[ends[-1] :].strip():
        raise DataError("the steps do not rebuild the text")
    return steps
