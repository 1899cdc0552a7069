"""Pairs: a model is right when it puts the chosen response strictly above the rejected one.

RewardBench 1 (Lambert et al. 2024, arXiv 2403.13787), PPE-style correctness pairs and any pair set. Candidate 0 is the
chosen one. A pair counts by its share of the row that it comes from: all pairs of a list count as one. A tie earns 0
for models that give scores and 1/2 for judges that compare, as RewardBench's two scripts have it; a suite's `ties` and
`judge_ties` say so.

A judge is asked in both orders. Where only one of them could be read, that one decides; where every item counts, each
order is worth a half and the unread one earns what `judge_unscored` says: RewardBench asks in one random order, LLMBar
averages over both, and this is what they give on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from evaluation.scoring.rule import Rule, first_is_better
from evaluation.suites.items import Answer, Credit, Item, unscored_credit
from evaluation.suites.suite import Suite
from rmkit.types import ModelKind

TieCredit = Literal["zero", "half"]
Unscored = Literal["zero", "chance"]


def credit(
    item: Item,
    answer: Answer,
    *,
    ties: TieCredit = "zero",
    judge_ties: TieCredit = "half",
    unread: Unscored = "zero",
) -> Credit:
    """The credit of one pair in the cell of its subset; `unread` is what an unread one of two orders earns."""
    margin = answer.verdict
    if math.isnan(margin):
        return unscored_credit(item, item.subset, possible=item.share)
    policy = judge_ties if answer.p else ties
    tie = 0.5 if policy == "half" else 0.0
    earned = tie if margin == 0 else float(margin > 0)
    of_all = (earned + (0.5 if unread == "chance" else 0.0)) / 2 if answer.one_order else None
    return Credit(
        item.id,
        item.cluster,
        item.subset,
        earned * item.share,
        item.share,
        tie=margin == 0,
        earned_of_all=None if of_all is None else of_all * item.share,
        possible_of_all=item.share,
    )


def credits(suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer], kind: ModelKind) -> list[Credit]:
    """The credit of every pair, by the suite's keys."""
    return [
        credit(i, answers[i.id], ties=suite.ties, judge_ties=suite.judge_ties, unread=suite.judge_unscored)
        for i in items
    ]


RULE = Rule(credits, order=first_is_better, compares=True, chance=lambda item, answer: 0.5)
