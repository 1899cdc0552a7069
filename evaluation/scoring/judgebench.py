"""JudgeBench (Tan et al. 2024, arXiv 2410.12784): pairs of which one is objectively right.

A judge is asked in both orders; each decision is worth +1 (right), -1 (wrong) or 0 (a tie, or no parsable verdict), and
the pair is right when the sum is above 0. So one right verdict and one tie is right, one right and one wrong is not.
A reward model plays a single game: right when the right response scores strictly higher.

The published number is micro (over pairs); some tables quote the mean over the four categories (macro). Candidate 0 is
the right one.
"""

from __future__ import annotations

import math

from evaluation.scoring.rule import Rule, each, first_is_better
from evaluation.suites.items import Answer, Credit, Item, unscored_credit


def credit(item: Item, answer: Answer) -> Credit:
    """The credit of one pair in the cell of its subset. A judge that failed in both orders is unscored (wrong by
    JudgeBench's own count: its sum is 0, not above)."""
    if answer.p:
        known = [decision(p) for p in answer.p if not math.isnan(p)]
        if not known:
            return unscored_credit(item, item.subset)
        total = sum(known)
        return Credit(item.id, item.cluster, item.subset, float(total > 0), tie=total == 0)
    if math.isnan(answer.margin):
        return unscored_credit(item, item.subset)
    return Credit(item.id, item.cluster, item.subset, float(answer.margin > 0), tie=answer.margin == 0)


def decision(p_right: float) -> int:
    """+1, 0 or -1 from the probability that the right response is the better one."""
    return (p_right > 0.5) - (p_right < 0.5)


RULE = Rule(
    each(lambda item, answer: [credit(item, answer)]),
    order=first_is_better,
    compares=True,
    chance=lambda item, answer: 0.5,
)
