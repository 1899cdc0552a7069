"""One number from the scores of steps, and one answer from many candidates.

    {min, last, mean, product} x {max, vote}    "min-max": the candidate whose lowest step is highest; "last-vote": the
                                                answer whose candidates' last steps add up to most
    majority                                    the most frequent answer; needs no scores

Compute-optimal test-time scaling (arXiv:2408.03314; arXiv:2502.06703). A candidate without an answer counts as -1, so
it wins only where no other is left; one that could not be scored stands behind all others and votes for nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from rmkit.errors import UsageError, unknown
from rmkit.search.space import Candidate, StepScores

REDUCTIONS = ("min", "last", "mean", "product")
MAJORITY = "majority"
AGGREGATES = (MAJORITY, *(f"{how}-{choose}" for how in REDUCTIONS for choose in ("max", "vote")))
NO_ANSWER = -1.0


def check_aggregate(name: str) -> str:
    """The name. Raises UsageError for an unknown one."""
    if name not in AGGREGATES:
        raise UsageError(unknown("aggregate", name, AGGREGATES))
    return name


def reduce_scores(scores: StepScores, how: str) -> float:
    """One number of a solution's step scores; NaN without any."""
    if not scores:
        return math.nan
    match how:
        case "min":
            return min(scores) if not any(map(math.isnan, scores)) else math.nan
        case "last":
            return scores[-1]
        case "mean":
            return math.fsum(scores) / len(scores)
        case _:
            return math.prod(scores)


def choose(candidates: Sequence[Candidate], aggregate: str) -> Candidate | None:
    """The candidate that wins, the first of equals; of an answer's voters the one of the largest score."""
    if not candidates:
        return None
    how, _, way = check_aggregate(aggregate).partition("-")
    if aggregate == MAJORITY:
        value = [1.0 if one.answer else NO_ANSWER for one in candidates]
    else:
        value = [reduce_scores(one.scores, how) if one.answer else NO_ANSWER for one in candidates]
    best = max(range(len(candidates)), key=lambda at: (_rank(value[at]), -at))
    if way == "max":
        return candidates[best]
    votes: dict[str, float] = defaultdict(float)
    for one, own in zip(candidates, value, strict=True):
        if one.answer and not math.isnan(own):
            votes[one.answer] += own
    if not votes:
        return candidates[best]
    winner = max(votes, key=lambda answer: votes[answer])  # of equals the one that came first
    voters = [at for at, one in enumerate(candidates) if one.answer == winner]
    return candidates[max(voters, key=lambda at: (_rank(value[at]), -at))]


def _rank(value: float) -> float:
    return -math.inf if math.isnan(value) else value
