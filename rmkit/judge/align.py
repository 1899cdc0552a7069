"""Which prompt and which examples make a judge agree with people: chosen on some pairs, reported on others.

    shots     pairs that variants may show, a fifth of the prompt families where variants show any
    choose    half of the rest: every variant judges them, the one with the highest credit is chosen
    test      the other half: the chosen variant against the judge as it was, a paired difference over families

A variant is a prompt with k examples that people decided, in its text. The best of many on `choose` is better there by
luck alone, hence `test`. Verdicts that cannot be read count as wrong in the choice and in the difference.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmkit.chat.reasoning import without_reasoning
from rmkit.data.pairs import Pair
from rmkit.errors import ConfigError
from rmkit.ids import content_hash, parse_messages
from rmkit.judge.agreement import Agreement, agreement_of, credits_of
from rmkit.metrics.bootstrap import paired_difference
from rmkit.types import Comparison

Part = Literal["shots", "choose", "test"]
LONGEST = 1500  # characters of a text in an example

_USER = re.compile(r"\{%-?\s*block\s+user\s*-?%\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`text` is the prompt's Jinja with its examples."""

    name: str
    text: str
    shots: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Credit of one side less that of the other on the same `n` pairs, with its interval over prompt families."""

    value: float
    low: float | None
    high: float | None
    n: int


def part_of(family: int, *, shots: bool, seed: int) -> Part:
    """Which part a prompt family belongs to, by its number and the seed alone."""
    place = int(content_hash(f"align {seed} {family}")[:12], 16) / 16**12
    if shots and place < 0.2:
        return "shots"
    return "choose" if place < (0.6 if shots else 0.5) else "test"


def shot_sets(pairs: Sequence[Pair], k: int, *, sets: int, seed: int) -> list[list[Pair]]:
    """`sets` draws of k decided pairs of different prompts. Raises ConfigError where there are fewer."""
    by_prompt = {pair.prompt: pair for pair in pairs if pair.p != 0.5}
    if len(by_prompt) < k:
        raise ConfigError(f"{k} examples to show, but only {len(by_prompt)} decided pairs are set aside for that")
    decided = sorted(by_prompt.values(), key=lambda pair: pair.id)
    rng = np.random.default_rng([seed, k])
    return [[decided[at] for at in rng.choice(len(decided), k, replace=False)] for _ in range(sets)]


def with_shots(text: str, shots: Sequence[Pair], *, pairs: bool) -> str:
    """The prompt's Jinja with examples at the beginning of its block user; `pairs` shows both responses together.

    The preferred response stands first and second in turn, so that the examples teach no place.
    """
    if not shots:
        return text
    start = _USER.search(text)
    if start is None:
        raise ConfigError("examples go into the block user of a prompt, and this one has none")
    shown = [_shot(pair, first=number % 2 == 0, pairs=pairs) for number, pair in enumerate(shots)]
    listed = "\n\n".join(f"Example {number}.\n{one}" for number, one in enumerate(shown, start=1))
    raw = listed.replace("{%", "{ %").replace("{{", "{ {").replace("{#", "{ #")
    block = f"{{% raw %}}Before you judge, see how people judged:\n\n{raw}\n\nNow it is your turn.\n\n{{% endraw %}}"
    return text[: start.end()] + block + text[start.end() :]


def _shot(pair: Pair, *, first: bool, pairs: bool) -> str:
    better, worse = (pair.first, pair.second) if pair.p > 0.5 else (pair.second, pair.first)
    prompt = _cut(pair.prompt)
    if not pairs:
        return f"{prompt}\nPeople preferred:\n{_cut(better)}\nto:\n{_cut(worse)}"
    a, b = (better, worse) if first else (worse, better)
    return (
        f"{prompt}\nResponse A:\n{_cut(a)}\nResponse B:\n{_cut(b)}\nPeople preferred Response {'A' if first else 'B'}."
    )


def _cut(messages: str) -> str:
    turns = [without_reasoning(message) for message in parse_messages(messages)]
    text = "\n\n".join(f"{turn.role}: {turn.content}" if len(turns) > 1 else turn.content for turn in turns)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def agreements(
    name: str, answers: Sequence[Comparison], labels: Sequence[Mapping[str, float]], families: Sequence[int]
) -> list[Agreement]:
    """Of one variant on every criterion that people judged by."""
    criteria = dict.fromkeys(criterion for row in labels for criterion in row)
    return [
        agreement_of(name, criterion, answers, [row.get(criterion, 0.5) for row in labels], families)
        for criterion in criteria
    ]


def mean_credit(answers: Sequence[Comparison], p: Sequence[float]) -> float:
    """Share of the decided pairs that are right, a tie half and an unread verdict wrong; NaN where none is decided."""
    known = [one for one in credits_of(answers, p) if not math.isnan(one)]
    return statistics.fmean(known) if known else math.nan


def difference(
    first: Sequence[Comparison], second: Sequence[Comparison], p: Sequence[float], families: Sequence[int]
) -> Difference:
    """Credits of the first less those of the second."""
    result = paired_difference(credits_of(first, p), credits_of(second, p), families)
    bounds = result.interval
    return Difference(
        value=result.value, n=result.n, low=bounds.low if bounds else None, high=bounds.high if bounds else None
    )
