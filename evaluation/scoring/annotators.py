"""Agreement with people, beside the agreement of people with each other: the ceiling to hold a model against.

    model   share of the votes that the model's choice equals; only an exact tie is the choice "tie"; of a judge that
            could be read in one order alone, that order's choice
    human   share of the pairs of votes on the same item that are equal

Both count a tie vote as a choice of its own. `model_decided` and `human_decided` leave tie votes out, which is what a
model that never ties can reach. `gold["votes"]` is a list of a | b | tie.
"""

from __future__ import annotations

import math
from itertools import combinations

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit


def credits(item: Item, answer: Answer) -> list[Credit]:
    """The credits in `subset/model`, `subset/human` and their `_decided` forms."""
    votes = list(item.gold["votes"])
    decided = [vote for vote in votes if vote != "tie"]
    return [
        *_model(item, answer, "model", votes),
        *_human(item, "human", votes),
        *_model(item, answer, "model_decided", decided),
        *_human(item, "human_decided", decided),
    ]


def _model(item: Item, answer: Answer, part: str, votes: list[str]) -> list[Credit]:
    cell, margin = f"{item.subset}/{part}", answer.verdict
    if not votes:
        return []
    if math.isnan(margin):
        return [unscored_credit(item, cell, possible=len(votes))]
    choice = "tie" if margin == 0 else "a" if margin > 0 else "b"
    return [Credit(item.id, item.cluster, cell, votes.count(choice), len(votes), tie=margin == 0)]


def _human(item: Item, part: str, votes: list[str]) -> list[Credit]:
    pairs = list(combinations(votes, 2))
    if not pairs:
        return []
    equal = sum(first == second for first, second in pairs)
    return [Credit(item.id, item.cluster, f"{item.subset}/{part}", equal, len(pairs))]


def _order(item: Item) -> list[tuple[int, int]]:
    """The side that more people chose; none on a draw."""
    votes = item.gold["votes"]
    lead = votes.count("a") - votes.count("b")
    return [] if lead == 0 else [(0, 1) if lead > 0 else (1, 0)]


RULE = Rule(each(credits), order=_order, compares=True)
