"""The pairs that judge training starts from: two responses, and which one is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmkit.data.example import Example
from rmkit.data.pairs import Pair, read_pairs
from rmkit.ids import content_hash
from rmkit.judge import Judge
from rmkit.judge.judged import (
    Judged,
    Vote,
)
from rmkit.types import Candidates, Message

Order = tuple[int, ...]
BOTH: tuple[Order, Order] = ((0, 1), (1, 0))


@dataclass(frozen=True, slots=True)
class Item:
    """A pair in stored order (by content hash, so the label is balanced by itself); `better` is 0 or 1."""

    id: str
    candidates: Candidates
    better: int
    source: str

    @property
    def length_gap(self) -> int:
        """Characters of the better response minus those of the other."""
        first, second = (len(completion.text) for completion in self.candidates.completions)
        return first - second if self.better == 0 else second - first

    def verdict(self, shown: Order) -> str:
        """The right letter for that order."""
        return "A" if shown[0] == self.better else "B"


def read_items(examples: Iterable[Example]) -> tuple[list[Item], dict[str, int]]:
    """The pairs with a better response, and the number of rows and pairs left out by reason."""
    pairs, skipped = read_pairs(examples)
    reasons = Counter(skipped)
    tied = sum(pair.p == 0.5 for pair in pairs)
    if tied:
        reasons["a tie has no right verdict"] += tied
    return [_item(pair) for pair in pairs if pair.p != 0.5], dict(reasons)


def _item(pair: Pair) -> Item:
    return Item(id=pair.id, candidates=pair.candidates, better=int(pair.p < 0.5), source=pair.subset)


def asking(judge: Judge, **changes: Any) -> Judge:
    """The same judge with other settings, counted together; replies are parsed: they become training text."""
    config = replace(judge.config, verdict="parse", **changes)
    requests = Judge(config, judge.engine, prompt=judge.prompt, profile=judge.profile)
    requests.tally = judge.tally
    return requests


def right(item: Item, vote: Vote) -> bool | None:
    """Whether the vote names the better response; None where it says nothing readable or calls it a tie."""
    if vote.reading.unread or vote.reading.values[0] == 0.5:
        return None
    return (vote.reading.values[0] > 0.5) == (vote.shown[0] == item.better)


def prompts_of(judge: Judge, item: Item) -> dict[Order, list[dict[str, str]]]:
    """Order shown -> the messages that this judge is asked with, as trainers take them."""
    return {shown: as_dicts(request.prompt) for shown, request in judge.requests(item.candidates)}


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def reply(text: str) -> list[dict[str, str]]:
    """An assistant's turn as trainers take it."""
    return [{"role": "assistant", "content": text}]


def by_hash(name: str) -> str:
    """A key that orders like chance and is the same in every run."""
    return content_hash(f"judge data {name}")


def unanswered(judged: Judged) -> str | None:
    """Why a call about this item got no answer (budget, endpoint, refusal), None where all were answered."""
    return next((f"no answer: {vote.sample.error}" for vote in judged.votes if vote.sample.error), None)
