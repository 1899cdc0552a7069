"""ProcessBench (Zheng et al. 2024, arXiv 2412.06559): find the first wrong step.

The prediction is the first step whose score is below the threshold, -1 where there is none; it is right only when it is
the annotated step (-1 for a solution without errors). Per subset:

    F1 = 2 a b / (a + b),  a = accuracy on the erroneous solutions, b = accuracy on the correct ones

The threshold is 0.5 on probabilities; the evaluator turns logits into probabilities, so it is 0 on their scale.
"""

from __future__ import annotations

import math

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit
from rmkit.metrics.steps import NO_ERROR, first_error


def credit(item: Item, answer: Answer) -> Credit:
    """The credit of one solution in the cell `subset/error` or `subset/correct`.

    `answer.steps` are probabilities of being right; `answer.scores` of one whole number is a stored prediction.
    """
    label = int(item.gold["first_error"])
    cell = f"{item.subset}/{'correct' if label == NO_ERROR else 'error'}"
    if answer.steps and not any(map(math.isnan, answer.steps)):
        predicted = first_error(answer.steps)
    elif answer.scores and not math.isnan(answer.scores[0]):
        predicted = int(answer.scores[0])
    else:
        return unscored_credit(item, cell)
    return Credit(item.id, item.cluster, cell, float(predicted == label))


RULE = Rule(each(lambda item, answer: [credit(item, answer)]), steps=True)
