"""Which prompts are worth training on: utilities over beliefs, the largest first.

half        nearest to a pass rate of one half, of a Thompson draw (MoPPS)
variance    p (1 - p) of the draw
spo         sqrt(p (1 - p)) + .05 of the mean, drawn in proportion (SPO's priority)
advantage   the last mean |A|; prompts never tried first
ucb         variance of the mean plus sqrt(2 ln(N + 1) / (n + 1))
value       nearest to one half of a value model's prediction (PCL)
uniform     any
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from rmkit.curriculum.beta import draws
from rmkit.shaping.group import Codes, Floats

Utility = Literal["half", "variance", "spo", "advantage", "ucb", "value", "uniform"]
UTILITIES: tuple[Utility, ...] = ("half", "variance", "spo", "advantage", "ucb", "value", "uniform")


def chosen(
    utility: Utility,
    m: int,
    rng: np.random.Generator,
    *,
    a: Floats,
    b: Floats,
    n: Floats,
    advantage: Floats,
    value: Floats,
) -> Codes:
    """Places of at most m prompts, best first, ties at random.

    [P] each: the Beta belief's a and b, the number n of answers, the last mean |A| and the value model's prediction,
    NaN where there is none.
    """
    ties = rng.random(len(a))
    match utility:
        case "half":
            score = -np.abs(draws(a, b, rng) - 0.5)
        case "variance":
            p = draws(a, b, rng)
            score = p * (1 - p)
        case "spo":
            p = a / (a + b)
            weight = np.sqrt(p * (1 - p)) + 0.05
            score = np.log(weight) + rng.gumbel(size=len(a))  # the m largest are a draw without replacement
        case "advantage":
            score = np.where(np.isnan(advantage), np.inf, advantage)
        case "ucb":
            p = a / (a + b)
            score = p * (1 - p) + np.sqrt(2 * np.log(n.sum() + 1) / (n + 1))
        case "value":
            score = -np.abs(np.where(np.isnan(value), a / (a + b), value) - 0.5)
        case _:
            score = np.zeros(len(a))
    return np.lexsort((ties, -score))[:m]
