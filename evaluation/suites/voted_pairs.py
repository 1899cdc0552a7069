"""Preference pairs with people's single votes, as files of the forms pairs and annotators hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.suites.forms import read_items
from evaluation.suites.items import Item
from evaluation.suites.load import read_rows
from rmkit.data.pairs import Pair
from rmkit.errors import DataError
from rmkit.ids import messages_json


@dataclass(frozen=True, slots=True)
class VotedPair:
    """A pair with its single votes (a | b | tie), where it has any."""

    pair: Pair
    votes: tuple[str, ...]


def read_voted_pairs(files: Sequence[Path]) -> tuple[list[VotedPair], dict[str, int]]:
    """The rows of all files with their families, and how many were left out by reason. Raises DataError without any."""
    items: list[tuple[str, Item]] = []
    skipped: Counter[str] = Counter()
    for path in files:
        raw = read_rows(path)
        form = "annotators" if raw and "labels" in raw[0] else "pairs"
        for item in read_items(form, raw, where=str(path)):
            if reason := _unusable(item):
                skipped[reason] += 1
            else:
                items.append((path.name, item))
    if not items:
        raise DataError(f"{', '.join(map(str, files))}: no usable pair")
    family = _families([item for _, item in items])
    return [_row(name, item, number) for (name, item), number in zip(items, family, strict=True)], dict(skipped)


def _unusable(item: Item) -> str | None:
    assert item.candidates is not None
    texts = [completion.text.strip() for completion in item.candidates.completions]
    if not all(texts):
        return "an empty reply"
    if texts[0] == texts[1]:
        return "equal replies"
    return "no vote" if "votes" in item.gold and not item.gold["votes"] else None


def _families(items: Sequence[Item]) -> list[int]:
    import polars as pl

    from data_pipelines.steps.split import families

    prompts = [messages_json(item.candidates.prompt) for item in items if item.candidates is not None]
    return [int(number) for number in families(pl.DataFrame({"prompt": prompts}))]


def _row(file: str, item: Item, family: int) -> VotedPair:
    """p is the share of votes for the first reply, ties counted half; without votes the first one was chosen."""
    assert item.candidates is not None
    votes = tuple(item.gold.get("votes", ()))
    p = (votes.count("a") + votes.count("tie") / 2) / len(votes) if votes else 1.0
    first, second = (messages_json(completion.messages) for completion in item.candidates.completions)
    prompt = messages_json(item.candidates.prompt)
    return VotedPair(Pair(item.id, 0, 1, prompt, first, second, p, 1.0, 1.0, family, file), votes)
