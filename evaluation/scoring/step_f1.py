"""PRMScore (Song et al. 2025, PRMBench, arXiv 2501.03124): every step of a solution is right or wrong.

A step is called right where its probability is above 1/2. Over all steps of the solutions, TP are right steps called
right, TN wrong steps called wrong, FP wrong steps called right, FN right steps called wrong:

    f1           2 TP / (2 TP + FP + FN)
    negative_f1  2 TN / (2 TN + FP + FN)
    PRMScore     (f1 + negative_f1) / 2, each over all steps of all classes

As its authors' tables have it (`get_prmscore_from_current_res_dict`), where a class has no wrong steps its score is f1
alone, and solutions that could not be scored are left out; of all, their steps count as called wrongly. Where nothing
right is called right, f1 is 0 here and -1 in their code.
"""

from __future__ import annotations

import math

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit

THRESHOLD = 0.5


def credits(item: Item, answer: Answer) -> list[Credit]:
    """The credits in `subset/f1` and `subset/negative_f1`: 2 TP and 2 TN of what they are divided by."""
    labels = [None if label is None else label >= THRESHOLD for label in item.gold["labels"]]
    cells = {True: f"{item.subset}/f1", False: f"{item.subset}/negative_f1"}
    known = sum(label is not None for label in labels)
    if not answer.steps or any(map(math.isnan, answer.steps)):
        return [unscored_credit(item, cell, possible=known) for cell in cells.values()]
    called = [(label, step > THRESHOLD) for label, step in zip(labels, answer.steps, strict=True) if label is not None]
    wrong = sum(label != guess for label, guess in called)
    return [
        Credit(item.id, item.cluster, cell, 2 * hits, 2 * hits + wrong)
        for side, cell in cells.items()
        if (hits := sum(label == guess == side for label, guess in called)) or wrong
    ]


RULE = Rule(each(credits), steps=True)
