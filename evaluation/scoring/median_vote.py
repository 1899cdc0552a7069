"""Agreement with the majority of people on a pair (AlpacaEval's "human agreement", Dubois et al. 2023, `analyze.py`).

With a = 0, tie = 1/2, b = 1, the credit is 1 - |choice - m|, where m is the median of the votes; of an even number of
votes the mean over the two middle ones, which is what drawing one of them gives on average. Two against two so earns
1/2 for either choice.

    agreement     over all pairs
    human         each person against the median of the others, where there are two or more votes: the ceiling

AlpacaEval asks its judges once, in a random order; here both orders count, and a judge that contradicts itself ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit

PLACES = {"a": 0.0, "tie": 0.5, "b": 1.0}


def agreement(choice: float, votes: Sequence[float]) -> float:
    """1 minus the mean distance of a choice from the middle vote or votes."""
    ordered = sorted(votes)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return 1 - sum(abs(choice - vote) for vote in middle) / len(middle)


def credits(item: Item, answer: Answer) -> list[Credit]:
    """The credits in `subset/agreement` and `subset/human`."""
    votes = [PLACES[vote] for vote in item.gold["votes"]]
    if not votes:
        return []
    people = [agreement(vote, votes[:at] + votes[at + 1 :]) for at, vote in enumerate(votes)] if len(votes) > 1 else []
    result = [Credit(item.id, item.cluster, f"{item.subset}/human", sum(people), len(people))] if people else []
    margin, cell = answer.verdict, f"{item.subset}/agreement"
    if math.isnan(margin):
        return [*result, unscored_credit(item, cell)]
    choice = 0.5 if margin == 0 else float(margin < 0)
    return [*result, Credit(item.id, item.cluster, cell, agreement(choice, votes), tie=margin == 0)]


def _order(item: Item) -> list[tuple[int, int]]:
    lead = item.gold["votes"].count("a") - item.gold["votes"].count("b")
    return [] if lead == 0 else [(0, 1) if lead > 0 else (1, 0)]


RULE = Rule(each(credits), order=_order, compares=True)
