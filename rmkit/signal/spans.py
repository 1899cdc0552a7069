"""Values of parts of a completion, in characters of its text, and their places in a trainer's own tokens.

The trainer's tokenizer says where its tokens lie (`return_offsets_mapping`); a span's value stands at the token in
which its last character lies. Values of a span without any token go to the next one, so the sum over the tokens is the
sum over the spans, whatever the tokenizer; a trainer that takes one number per completion gets that sum.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from rmkit.errors import DataError
from rmkit.types import Span


def step_spans(values: Sequence[float | None], ends: Sequence[int]) -> list[Span]:
    """Spans of steps that follow each other. Raises DataError where there is not a value for each step."""
    if len(values) != len(ends):
        raise DataError(f"{len(values)} values for {len(ends)} steps")
    return [Span(value, start, end) for value, start, end in zip(values, (0, *ends[:-1]), ends, strict=True)]


def total(spans: Sequence[Span]) -> float | None:
    """The sum over a completion; None where any value is missing."""
    values = [span.value for span in spans if span.value is not None]
    return sum(values) if len(values) == len(spans) and spans else None


def token_values(
    spans: Sequence[Span], offsets: Sequence[tuple[int, int]], *, at: Literal["last", "all"] = "last"
) -> list[float]:
    """[T] one number per token, 0 where there is none; `offsets` are the tokens' characters, ascending.

    "last" puts a span's value at the token in which it ends, "all" at every token that ends in it (advantages of
    steps). Raises DataError for a missing value: its tokens would count as zero.
    """
    values = [0.0] * len(offsets)
    if spans and not offsets:
        raise DataError("there are spans, but no tokens to put them at")
    ends = [end for _, end in offsets]
    for span in spans:
        if span.value is None:
            raise DataError(f"the span of characters {span.start} to {span.end} has no value")
        place = min(bisect_left(ends, span.end), len(offsets) - 1)
        first = min(bisect_right(ends, span.start), place) if at == "all" else place
        for token in range(first, place + 1):
            values[token] = span.value if at == "all" else values[token] + span.value
    return values


def token_offsets(tokenizer: Any, ids: Sequence[int]) -> list[tuple[int, int]]:
    """[T] characters of each token in the decoded text, special tokens empty: what a trainer's completion text is."""
    ends = [0]
    for n in range(1, len(ids) + 1):
        ends.append(max(ends[-1], len(tokenizer.decode(ids[:n], skip_special_tokens=True).rstrip("\ufffd"))))
    return list(pairwise(ends))
