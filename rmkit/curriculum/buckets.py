"""CLPO's buckets by pass rate, and filters of prompts by what several models make of them.

    hard    p <= .3: rewritten more simply         medium   below .7: rewritten in other words         easy   the rest

The share of models that are right (Psyche-R1's agreement filter) is a mean over models that answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Bucket = Literal["hard", "medium", "easy"]
REWRITE: dict[Bucket, str | None] = {"hard": "simplify", "medium": "diversify", "easy": None}


def bucket(pass_rate: float, *, hard: float = 0.3, easy: float = 0.7) -> Bucket:
    """The bucket; at .3 itself the paper says neither, here it is hard."""
    if pass_rate <= hard:
        return "hard"
    return "medium" if pass_rate < easy else "easy"


def agreement(verdicts: Sequence[float | None]) -> float | None:
    """The share of models that are right, None where none answered."""
    present = [verdict for verdict in verdicts if verdict is not None]
    return sum(present) / len(present) if present else None


def disputed(verdicts: Sequence[float | None], *, most: float = 0.5) -> bool:
    """Whether fewer than `most` of the models are right: a prompt worth training on."""
    share = agreement(verdicts)
    return share is not None and share < most
