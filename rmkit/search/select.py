"""`select`: one question, one budget, one method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from rmkit.errors import ConfigError, UsageError
from rmkit.search.aggregate import MAJORITY, check_aggregate, choose
from rmkit.search.beam import beam
from rmkit.search.puct import tree_search
from rmkit.search.space import Proposer, Reader, Scorer, Selection, Trace
from rmkit.verifiers.answer_text import marked_answer, normal

Method = Literal["best_of_n", "beam", "lookahead", "puct", "uct"]
METHODS: tuple[Method, ...] = ("best_of_n", "beam", "lookahead", "puct", "uct")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Which method, and its numbers."""

    method: Annotated[Method, "how candidates come about"] = "best_of_n"
    budget: Annotated[int, "solutions' worth of steps that the policy may write"] = 16
    aggregate: Annotated[str, "how one of the candidates is chosen: majority, or min|last|mean|product-max|vote"] = (
        "min-max"
    )
    width: Annotated[int, "next steps of a state, in beams and trees"] = 4
    ahead: Annotated[int, "steps that lookahead looks ahead"] = 2
    max_steps: Annotated[int, "longest solution, in steps"] = 32

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)
        if min(self.budget, self.width, self.ahead, self.max_steps) < 1:
            raise ConfigError("search: budget, width, ahead and max_steps must be positive")


def select(propose: Proposer, score: Scorer | None, config: SearchConfig, *, read: Reader | None = None) -> Selection:
    """The chosen solution with all that were finished and the trace.

    `read` says which answer a solution gives (default: its marked final answer, in normal form). Raises UsageError
    where a method needs scores and there is no scorer.
    """
    if score is None and (config.method != "best_of_n" or config.aggregate != MAJORITY):
        raise UsageError(f"search: {config.method} with {config.aggregate} needs a model; majority needs none")
    read = read or read_answer
    trace = Trace(score)
    numbers = {"budget": config.budget, "width": config.width, "max_steps": config.max_steps}
    match config.method:
        case "best_of_n":
            [drawn] = propose.solutions([()], config.budget)
            trace.written = sum(map(len, drawn))
            trace.finish(drawn, read)
            repeated = [trace.finished[state] for state in drawn]  # a solution drawn twice votes twice
            return trace.selection(choose(repeated, config.aggregate), repeated)
        case "beam":
            beam(propose, trace, read, **numbers)
        case "lookahead":
            beam(propose, trace, read, ahead=config.ahead, **numbers)
        case _:
            tree_search(propose, trace, read, formula=config.method, **numbers)
    if not trace.finished:
        _finish_best(propose, trace, read)
    candidates = list(trace.finished.values())
    return trace.selection(choose(candidates, config.aggregate), candidates)


def _finish_best(propose: Proposer, trace: Trace, read: Reader) -> None:
    """Where the budget ended before any solution did, the policy writes the best beginning to its end."""
    known = {state: scores[-1] for state, scores in trace.known.items() if scores and not math.isnan(scores[-1])}
    if known:
        best = max(known, key=lambda state: (len(state), known[state]))
        [drawn] = propose.solutions([best], 1)
        trace.written += sum(len(state) - len(best) for state in drawn)
        trace.finish(drawn, read)


def read_answer(text: str) -> str:
    """The marked final answer in its normal form, "" where nothing marks one."""
    answer = marked_answer(text)
    return normal(answer) if answer else ""
