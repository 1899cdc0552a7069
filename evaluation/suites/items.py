"""The three shapes that every benchmark goes through: an item is asked, an answer comes back, credits are earned.

    Item      what the benchmark asks: candidates, and the gold facts that its scoring rule needs
    Answer    what a model (or a file of stored scores) said about one item; missing is NaN with a reason, never zero
    Credit    what one answer earns in one cell of the score table; one item may earn in several cells

Cells are named "subset" or "subset/part". Credits are the only thing that statistics look at, so intervals, paired
tests and reports are the same for every benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rmkit.ids import canonical_json, content_hash, digest, messages_json
from rmkit.types import Candidates


@dataclass(frozen=True, slots=True)
class Item:
    """`cluster` names what is not independent (the prompt); `gold` is JSON-ready; `candidates` is None where only
    stored scores are at hand. `positions` are the candidates' places in the row they come from, empty where that is
    their own order."""

    id: str
    subset: str
    cluster: str
    gold: Mapping[str, Any] = field(default_factory=dict)
    candidates: Candidates | None = None
    positions: tuple[int, ...] = ()

    @property
    def row(self) -> str:
        """The id of the row it comes from; a row with several replies gives items that end in their positions."""
        row = self.id.removeprefix(f"{self.subset}/")
        return row.partition(":")[0] if self.positions else row

    @property
    def p(self) -> float:
        """Of a pair: the label's probability that the first candidate is the better one, 1 where nothing says less."""
        return float(self.gold.get("p", 1.0))

    @property
    def share(self) -> float:
        """Of a pair: its part of the row, which counts once however many pairs it gives."""
        return float(self.gold.get("share", 1.0))

    @property
    def content(self) -> str:
        """Identity of what is asked and of the gold facts, whatever the item is called."""
        texts = []
        if (candidates := self.candidates) is not None:
            texts = [messages_json(candidates.prompt), *(messages_json(one.messages) for one in candidates.completions)]
            if candidates.tools or candidates.reference or candidates.rubric:
                texts.append(canonical_json([list(candidates.tools), candidates.reference, list(candidates.rubric)]))
        return content_hash(canonical_json([texts, dict(self.gold)]))


@dataclass(frozen=True, slots=True)
class Answer:
    """`scores` [N] one per candidate; or `p` (one or two probabilities that the first candidate is the better one,
    asked as shown and swapped, both turned to the first); or `steps` [S]. `predicted` is the probability that a model
    gives for a pair which it scores on a scale without the Bradley-Terry link, or for a
    single response to be good. `latency_ms` is the item's share of the wall time of the batch it was scored in."""

    item: str
    scores: tuple[float, ...] = ()
    p: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()
    predicted: float = math.nan
    unscored: str | None = None
    latency_ms: float = math.nan

    @property
    def margin(self) -> float:
        """Of a pair: positive where the first candidate is preferred, 0 a tie, NaN where it is not known."""
        if self.p:
            return sum(self.p) / len(self.p) - 0.5
        return self.scores[0] - self.scores[1] if len(self.scores) >= 2 else math.nan

    @property
    def one_order(self) -> bool:
        """Whether a pair was asked in both orders and only one of them could be read."""
        return len(self.p) == 2 and sum(map(math.isnan, self.p)) == 1

    @property
    def verdict(self) -> float:
        """The margin, and where only one of two orders could be read that one's: enough to say who is preferred, but no
        probability, since the bias of the position is in it."""
        return next(p for p in self.p if not math.isnan(p)) - 0.5 if self.one_order else self.margin

    @property
    def swap_gap(self) -> float:
        """|p(A,B) + p(B,A) - 1| where both orders were asked, else NaN."""
        return abs(self.p[0] - self.p[1]) if len(self.p) == 2 else math.nan


@dataclass(frozen=True, slots=True)
class Credit:
    """`earned` of `possible` (0 where unscored, so that it counts in no denominator).

    `earned_of_all` is what it earns where every item counts, by the suite's `unscored` keys; None is `earned`.
    `possible_of_all` is what an unscored one could have earned.
    """

    item: str
    cluster: str
    cell: str
    earned: float
    possible: float = 1.0
    tie: bool = False
    unscored: bool = False
    earned_of_all: float | None = None
    possible_of_all: float = 1.0


def unscored_credit(item: Item, cell: str, *, possible: float = 1.0) -> Credit:
    """The credit of something that could not be scored: in no numerator and no denominator of what was scored."""
    return Credit(item.id, item.cluster, cell, 0.0, 0.0, unscored=True, possible_of_all=possible)


def of_all(credits: Sequence[Credit]) -> list[Credit]:
    """The credits with every item in the denominators, each earning what the suite's own count gives it."""
    return [
        credit if credit.earned_of_all is None else replace(credit, earned=credit.earned_of_all)
        for credit in unscored_not_right(credits)
    ]


def unscored_not_right(credits: Sequence[Credit]) -> list[Credit]:
    """The credits with every item in the denominators, earning nothing where there is no score."""
    return [
        replace(credit, possible=credit.possible_of_all, unscored=False) if credit.unscored else credit
        for credit in credits
    ]


def subset_digests(items: Sequence[Item]) -> dict[str, str]:
    """Hex SHA-256 of each subset's content, independent of order and of the items' names."""
    contents: dict[str, list[str]] = {}
    for item in items:
        contents.setdefault(item.subset, []).append(item.content)
    return {subset: digest(sorted(hashes)) for subset, hashes in sorted(contents.items())}
