"""Pairs: what Bradley-Terry training and pairwise evaluation read out of examples of any kind.

A row with N >= 2 responses gives one pair, or up to N(N-1)/2 of them for a list, each weighted so that the row counts
once. The label of a pair is the probability that its first response is the better one:

    pair    p, else ranks, else scores
    list    ranks, else scores, else p
    p       Luce's choice rule, p_i / (p_i + p_j) (Luce 1959); nothing is said where both are zero
    ranks   1, 0, or 0.5 for a tie; unranked responses are left out
    scores  order of the mean over the aspects that every response was rated on

Rows without responses to compare or without such a label are skipped and counted by reason, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmkit.data.example import Example, prompt_facts
from rmkit.ids import parse_messages
from rmkit.types import Candidates, Completion


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses of one example. `share` is 1 / pairs of the row; `weight` is the example's own times `share`.

    `prompt`, `first` and `second` are canonical JSON message lists; `subset` falls back to the source; `tools`,
    `reference` and `rubric` are the row's own.
    """

    example: str
    i: int
    j: int
    prompt: str
    first: str
    second: str
    p: float
    share: float
    weight: float
    family: int
    subset: str
    tools: str | None = None
    reference: str | None = None
    rubric: str | None = None

    @property
    def id(self) -> str:
        """The example's id, with the responses' positions where they are not simply the first two."""
        return self.example if (self.i, self.j) == (0, 1) else f"{self.example}:{self.i}:{self.j}"

    @property
    def candidates(self) -> Candidates:
        """The pair as a model's input."""
        completions = tuple(Completion(parse_messages(text)) for text in (self.first, self.second))
        facts = prompt_facts({"tools": self.tools, "reference": self.reference, "rubric": self.rubric})
        return Candidates(parse_messages(self.prompt), completions, **facts)


def read_pairs(examples: Iterable[Example]) -> tuple[list[Pair], dict[str, int]]:
    """The pairs of the examples in order, and the number of rows skipped by reason."""
    pairs: list[Pair] = []
    skipped: Counter[str] = Counter()
    for example in examples:
        result = _pairs(example.row)
        if isinstance(result, str):
            skipped[result] += 1
        else:
            pairs += result
    return pairs, dict(skipped)


def _pairs(row: Mapping[str, Any]) -> list[Pair] | str:
    responses = row["responses"] or []
    if len(responses) < 2:
        return f"nothing to compare (kind {row['kind']})"
    if row["prompt"] is None or None in responses:
        return "text erased"
    labels = _labels(row)
    if not labels:
        return "no label that compares responses"
    share = 1 / len(labels)
    template = Pair(
        example=row["id"],
        i=0,
        j=1,
        prompt=row["prompt"],
        first="",
        second="",
        p=0.5,
        share=share,
        weight=share * (1.0 if row["weight"] is None else row["weight"]),
        family=row["family"],
        subset=row["subset"] or row["source"] or "all",
        **{name: row.get(name) for name in ("tools", "reference", "rubric")},
    )
    return [replace(template, i=i, j=j, first=responses[i], second=responses[j], p=p) for (i, j), p in labels.items()]


def _labels(row: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    """Position pairs (i < j) -> probability that i is better."""
    p, ranks, scores = row["p"], row["ranks"], _mean_scores(row["scores"], len(row["responses"]))
    by_rank = [None if rank is None else -float(rank) for rank in ranks] if ranks else None
    by_choice = _by_choice(p) if p else {}
    if row["kind"] == "pair" and by_choice:
        return by_choice
    for values in (by_rank, scores):
        if values and (ordered := _by_order(values)):
            return ordered
    return by_choice


def _by_choice(p: Sequence[float | None]) -> dict[tuple[int, int], float]:
    known = [(i, value) for i, value in enumerate(p) if value is not None and value >= 0]
    return {(i, j): a / (a + b) for (i, a), (j, b) in combinations(known, 2) if a + b > 0}


def _by_order(values: Sequence[float | None]) -> dict[tuple[int, int], float]:
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    return {(i, j): float(np.sign(a - b) + 1) / 2 for (i, a), (j, b) in combinations(known, 2)}


def _mean_scores(scores: Sequence[Mapping[str, Any]] | None, n: int) -> list[float | None] | None:
    """Mean over the aspects that all n responses have a value for; None where there is no such aspect."""
    table: dict[str, dict[int, float]] = {}
    for score in scores or []:
        if score["value"] is not None:
            table.setdefault(score["aspect"] or "", {})[score["response"]] = score["value"]
    complete = [values for values in table.values() if len(values) == n]
    if not complete:
        return None
    return [sum(values[i] for values in complete) / len(complete) for i in range(n)]


def column(pairs: Sequence[Pair], name: str) -> NDArray[Any]:
    """One numeric field of all pairs as an array."""
    return np.array([getattr(pair, name) for pair in pairs])
