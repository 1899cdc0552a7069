"""What search moves in: states are steps written so far; who proposes and who scores; what a search ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rmkit.trees.dump import DumpNode
from rmkit.trees.tree import Facts

State = tuple[str, ...]
StepScores = tuple[float, ...]


class Extension(NamedTuple):
    """One more step; `done` where the solution ends with it. `prior` is its probability a token (geometric mean)."""

    step: str
    done: bool
    prior: float = math.nan


class Proposer(Protocol):
    def steps(self, states: Sequence[State], n: int) -> list[list[Extension]]:
        """[states][<= n] next steps; fewer where a call failed."""
        ...

    def solutions(self, states: Sequence[State], n: int) -> list[list[State]]:
        """[states][<= n] whole solutions that begin with the state."""
        ...


class Scorer(Protocol):
    def __call__(self, states: Sequence[State]) -> list[StepScores]:
        """A number for each step of each state (one alone for the whole where the model has no steps); larger is
        better, NaN where it could not be scored."""
        ...


class Reader(Protocol):
    def __call__(self, text: str) -> str:
        """The answer that a solution gives, "" where it gives none."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished solution."""

    steps: State
    scores: StepScores
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen, None where nothing was finished; `written` counts the steps that the policy wrote, `scored` the
    states that were scored, `nodes` is the trace."""

    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    written: int
    scored: int
    nodes: tuple[DumpNode, ...]


@dataclass(slots=True)
class Trace:
    """Counts, and what is known of each state that was visited."""

    score: Scorer | None
    written: int = 0
    scored: int = 0
    known: dict[State, StepScores] = field(default_factory=dict)
    facts: dict[State, Facts] = field(default_factory=dict)
    finished: dict[State, Candidate] = field(default_factory=dict)

    def scores(self, states: Sequence[State]) -> list[StepScores]:
        """Scores of the states, each asked for once; without a scorer none has any."""
        new = [state for state in dict.fromkeys(states) if state not in self.known]
        if new:
            results: list[StepScores] = [()] * len(new) if self.score is None else self.score(new)
            self.scored += 0 if self.score is None else len(new)
            self.known |= dict(zip(new, results, strict=True))
        return [self.known[state] for state in states]

    def finish(self, states: Sequence[State], read: Reader) -> None:
        for state, scores in zip(states, self.scores(states), strict=True):
            self.finished[state] = Candidate(state, scores, read("".join(state)))

    def selection(self, chosen: Candidate | None, candidates: Sequence[Candidate]) -> Selection:
        nodes: dict[State, DumpNode] = {}
        for state in sorted({*self.known, *self.facts, *self.finished}, key=lambda one: (len(one), one)):
            for end in range(1, len(state) + 1):
                part = state[:end]
                scores = self.known.get(part, ())
                facts = self.facts.get(part, Facts(value=scores[-1] if scores else math.nan))
                nodes.setdefault(part, DumpNode(steps=part, facts=facts, outcome=math.nan, leaf=part in self.finished))
        return Selection(
            chosen=chosen,
            candidates=tuple(candidates),
            written=self.written,
            scored=self.scored,
            nodes=tuple(sorted(nodes.values(), key=lambda node: (len(node.steps), node.steps))),
        )
