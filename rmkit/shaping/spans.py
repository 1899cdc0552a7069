"""Rewards of parts of a text: spans in characters, and their way onto the tokens of whoever trains.

A span's value belongs to the characters start ... end (exclusive) of a completion's text. A trainer maps it onto its
own tokens by their offsets (start and end of each token in that text, as tokenizers give them; empty for special
tokens), or, where it takes one number only, uses the sum of all spans. Prompt and padding get nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from rmkit.errors import DataError
from rmkit.shaping.group import Floats
from rmkit.types import Span

Offsets = Sequence[tuple[int, int]]
TURN_JOINT = "\n\n"  # what stands between turns in Completion.text


def step_spans(values: Sequence[float | None], step_ends: Sequence[int]) -> list[Span]:
    """One span a step, from the end of the one before; `step_ends` as in Completion. DataError for other lengths."""
    if len(values) != len(step_ends):
        raise DataError(f"{len(values)} step values for {len(step_ends)} step ends")
    starts = [0, *step_ends][: len(step_ends)]
    if any(start >= end for start, end in zip(starts, step_ends, strict=True)):
        raise DataError(f"step ends must ascend from above 0, got {list(step_ends)}")
    return [Span(value, start, end) for value, start, end in zip(values, starts, step_ends, strict=True)]


def turn_spans(values: Sequence[float | None], turns: Sequence[str]) -> list[Span]:
    """One span for each assistant turn of a completion's text, in which blank lines stand between turns."""
    if len(values) != len(turns):
        raise DataError(f"{len(values)} turn values for {len(turns)} turns")
    spans, start = [], 0
    for value, turn in zip(values, turns, strict=True):
        spans.append(Span(value, start, start + len(turn)))
        start += len(turn) + len(TURN_JOINT)
    return spans


def token_spans(values: Iterable[float | None], offsets: Offsets) -> list[Span]:
    """Rewards of another model's tokens, as spans; its special tokens have none."""
    pairs = zip(values, offsets, strict=True)
    return [Span(value, start, end) for value, (start, end) in pairs if end > start]


def wrong_shares(critiques: Iterable[Iterable[int] | None], n_steps: int) -> list[float | None]:
    """For each step the share of critiques that call it wrong (CAPO). None for all where no critique could be read.

    A critique is the numbers (from 0) of the steps it calls wrong; None, one that failed, abstains. Numbers of steps
    that do not exist are ignored. 1 is the intersection of the critiques, above .5 their majority, above 0 the union.
    """
    read = [{step for step in one if 0 <= step < n_steps} for one in critiques if one is not None]
    return [sum(step in one for one in read) / len(read) if read else None for step in range(n_steps)]


def sequence_value(spans: Iterable[Span]) -> float | None:
    """The sum over all spans, for whoever takes one number; None where one of them is missing."""
    values = [span.value for span in spans]
    return None if None in values else math.fsum(value for value in values if value is not None)


def piece_offsets(pieces: Iterable[str]) -> list[tuple[int, int]]:
    """Offsets of tokens by their texts, where a tokenizer gives none; the texts must make up the completion's."""
    offsets, start = [], 0
    for piece in pieces:
        offsets.append((start, start + len(piece)))
        start += len(piece)
    return offsets


def token_offsets(tokenizer: Any, ids: Sequence[int]) -> list[tuple[int, int]]:
    """[T] characters of each token in the decoded text, special tokens empty: what a trainer's completion text is."""
    ends = [0]
    for n in range(1, len(ids) + 1):
        ends.append(max(ends[-1], len(tokenizer.decode(ids[:n], skip_special_tokens=True).rstrip("\ufffd"))))
    return list(pairwise(ends))


def on_tokens(spans: Sequence[Span], offsets: Offsets, *, at: Literal["last", "all", "divided"] = "last") -> Floats:
    """[T] the spans' values on the tokens that touch them, 0 elsewhere.

    last      all of it at the last of them: sums stay as they are (process rewards, turns)
    all       the value at each of them (advantages, masks); a token that touches several spans gets the last one's
    divided   the same share at each of them: sums stay as they are

    With `last` and `divided` a token that touches several spans gets the sum. A span that no token touches goes to the
    next token, or the last one: nothing is lost, whatever the tokenizer. Raises DataError for a span without a value,
    whose tokens would count as zero, and for spans where there is no token at all.
    """
    values = np.zeros(len(offsets))
    if spans and not len(offsets):
        raise DataError("there are spans, but no tokens to put them at")
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    written = ends > starts
    for value, start, end in spans:
        if value is None:
            raise DataError(f"the span of characters {start} to {end} has no value")
        # a token without characters is special, or the first bytes of a character; inside of a span it is a part of it
        touching = np.flatnonzero((starts < end) & (ends > start) & (written | (ends < end)))
        if not len(touching):
            behind = np.flatnonzero(written & (ends >= end))
            touching = behind[:1] if len(behind) else np.flatnonzero(written)[-1:]
        if not len(touching):
            touching = np.array([len(offsets) - 1])
        if at == "last":
            values[touching[-1]] += value
        elif at == "all":
            values[touching] = value
        else:
            values[touching] += value / len(touching)
    return values
