"""Agreement with people on whether a response meets a criterion: HealthBench's meta-evaluation (Arora et al. 2025,
arXiv 2505.08775, `compute_metrics_for_rater_by_class` of its code).

The model's verdict on a criterion (met where its probability is 1/2 or more) is held against every person's: each is a
pair of labels. Over all pairs, TP are those where both say met, TN where neither does:

    f1, negative_f1               2 TP (TN) / (2 TP (TN) + pairs that disagree)
    human_f1, human_negative_f1   the same of every person against every other, over all of them together: the ceiling
    balanced F1                   the mean of f1 and negative_f1

A model is shown the response with that one criterion as its rubric; what takes no rubric scores the response alone. A
scale without a probability is unscored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import permutations

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit

THRESHOLD = 0.5


def credits(item: Item, answer: Answer) -> list[Credit]:
    """The credits in the four cells of the item's subset."""
    labels: list[bool] = list(item.gold["labels"])
    people = _agreement(item, "human_", permutations(labels, 2))
    if math.isnan(answer.predicted):
        lost = [unscored_credit(item, f"{item.subset}/{part}", possible=len(labels)) for part in ("f1", "negative_f1")]
        return [*lost, *people]
    return [*_agreement(item, "", [(answer.predicted >= THRESHOLD, label) for label in labels]), *people]


def _agreement(item: Item, prefix: str, pairs: Iterable[tuple[bool, bool]]) -> list[Credit]:
    pairs = list(pairs)
    differ = sum(first != second for first, second in pairs)
    both = {f"{prefix}f1": (True, True), f"{prefix}negative_f1": (False, False)}
    return [
        Credit(item.id, item.cluster, f"{item.subset}/{part}", 2 * pairs.count(same), 2 * pairs.count(same) + differ)
        for part, same in both.items()
        if pairs.count(same) or differ
    ]


RULE = Rule(each(credits), probabilities=True)
