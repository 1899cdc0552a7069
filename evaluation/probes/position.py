"""Position: does a judge's verdict survive swapping the two replies?

From the two probabilities of every pair that was asked in both orders, turned to the same reply:

    consistent       share of pairs with the same verdict in both orders (a tie equals a tie only)
    mean_swap_gap    mean |p(A,B) + p(B,A) - 1|
    prefers_first    share of the inconsistent pairs in which the reply shown first won both times
    unscored         pairs left out because an order could not be read
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.suites.items import Answer


def position_probe(answers: Sequence[Answer]) -> dict[str, object] | None:
    """Counts and shares; None where no pair was asked in both orders."""
    requests = [answer for answer in answers if len(answer.p) == 2]
    both = [answer for answer in requests if not any(map(math.isnan, answer.p))]
    if not both:
        return None
    verdicts = [tuple((p > 0.5) - (p < 0.5) for p in answer.p) for answer in both]
    consistent = sum(first == second for first, second in verdicts)
    flipped = [first > second for first, second in verdicts if first != second]
    return {
        "n": len(both),
        "unscored": len(requests) - len(both),
        "consistent": {"percent": 100 * consistent / len(both), "numerator": consistent, "denominator": len(both)},
        "mean_swap_gap": sum(answer.swap_gap for answer in both) / len(both),
        "prefers_first": {
            "percent": 100 * sum(flipped) / len(flipped) if flipped else None,
            "numerator": sum(flipped),
            "denominator": len(flipped),
        },
    }
