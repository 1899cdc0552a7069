"""Beam search by step scores, with or without looking ahead.

Each round, the policy writes `budget` next steps behind the kept states, all of them are scored by their last step, and
the best stay: budget / width of them, less one for each solution that is finished. Equal states are one. With `ahead`
> 0 a step is scored by what the policy makes of it in so many more steps, which the budget pays for (Snell et al.,
arXiv:2408.03314).
"""

from __future__ import annotations

import math

from rmkit.search.space import Extension, Proposer, Reader, State, Trace
from rmkit.trees.tree import Facts


def beam(
    propose: Proposer, trace: Trace, read: Reader, *, budget: int, width: int, ahead: int = 0, max_steps: int
) -> None:
    """Finishes solutions in the trace; what is open at the end is let go."""
    width = max(1, min(width, budget))
    keep = max(1, budget // (width * (1 + ahead)))
    states: list[State] = [()]
    for _ in range(max_steps):
        room = keep - len(trace.finished)
        if not states or room <= 0:
            break
        extended = _extended(propose, trace, states, max(1, budget // (1 + ahead) // len(states)))
        done = [state for state, one in extended.items() if one.done]
        looked = _looked_ahead(propose, trace, list(extended), ahead, done=set(done))
        value = dict(
            zip(extended, (scores[-1] if scores else math.nan for scores in trace.scores(looked)), strict=True)
        )
        for state, own in value.items():
            trace.facts[state] = Facts(
                value=own, prior=extended[state].prior, stop="answer" if extended[state].done else ""
            )
        best = sorted(value, key=lambda state: -math.inf if math.isnan(value[state]) else value[state], reverse=True)
        best = best[:room]
        trace.finish([state for state in best if state in set(done)], read)
        states = [state for state in best if state not in set(done)]


def _extended(propose: Proposer, trace: Trace, states: list[State], n: int) -> dict[State, Extension]:
    """The states one step on, equal ones once."""
    result: dict[State, Extension] = {}
    for state, extensions in zip(states, propose.steps(states, n), strict=True):
        trace.written += len(extensions)
        for one in extensions:
            longer = (*state, one.step) if one.step.strip() else state
            if longer:
                result.setdefault(longer, one)
    return result


def _looked_ahead(propose: Proposer, trace: Trace, states: list[State], ahead: int, *, done: set[State]) -> list[State]:
    """The states as the policy goes on with them, one step each time; what is done stays."""
    looked, open_ = list(states), [state not in done for state in states]
    for _ in range(ahead):
        at = [i for i, still in enumerate(open_) if still]
        for i, extensions in zip(at, propose.steps([looked[i] for i in at], 1) if at else [], strict=True):
            trace.written += len(extensions)
            open_[i] = bool(extensions) and not extensions[0].done
            if extensions and extensions[0].step.strip():
                looked[i] = (*looked[i], extensions[0].step)
    return looked
