"""Any generator as a proposer, any reward model as a scorer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from rmkit.chat.steps import in_steps, step_texts
from rmkit.errors import DataError
from rmkit.generate import Engine, Request, Sample
from rmkit.search.space import Extension, State, StepScores
from rmkit.types import Candidates, Completion, Message, RewardModel
from rmkit.verifiers.answer_text import marked_answer


class GeneratorProposer:
    """Steps end at `separator`; a solution ends with a step that marks its answer, or where the policy says no more.

    `failed` counts calls without a reply.
    """

    def __init__(self, engine: Engine, request: Request, *, separator: str = "\n", priors: bool = False) -> None:
        self._engine = engine
        self._request = replace(request, top_logprobs=1 if priors else 0)
        self._separator = separator
        self.failed = 0

    def steps(self, states: Sequence[State], n: int) -> list[list[Extension]]:
        requests = [replace(self._begun(state), stop=(self._separator,)).samples(n) for state in states]
        return [
            [self._extension(sample) for sample in row if self._is_reply(sample)] for row in self._answers(requests)
        ]

    def solutions(self, states: Sequence[State], n: int) -> list[list[State]]:
        rows = self._answers([self._begun(state).samples(n) for state in states])
        results = []
        for state, row in zip(states, rows, strict=True):
            texts = [sample.text for sample in row if self._is_reply(sample)]
            results.append([one for text in texts if (one := self._solution(state, text))])
        return results

    def _answers(self, requests: Sequence[Sequence[Request]]) -> list[list[Sample]]:
        flat = iter(self._engine.samples([request for row in requests for request in row]))
        return [[next(flat) for _ in row] for row in requests]

    def _begun(self, state: State) -> Request:
        if not state:
            return self._request
        return replace(self._request, prompt=(*self._request.prompt, Message("assistant", "".join(state))))

    def _extension(self, sample: Sample) -> Extension:
        step = sample.text.strip("\n")
        done = not step.strip() or marked_answer(step) is not None
        logprobs = [token.logprob for token in sample.logprobs]
        prior = math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else math.nan
        return Extension(step + ("" if done else self._separator), done, prior)

    def _solution(self, state: State, text: str) -> State:
        rest = text.strip("\n")
        try:
            return (*state, *step_texts(in_steps(_completion((rest,)), separator=self._separator)))
        except DataError:
            return state

    def _is_reply(self, sample: Sample) -> bool:
        fine = sample.finish not in ("error", "malformed")
        self.failed += not fine
        return fine


class ModelScorer:
    """A process model scores each step; any other model the whole, as one number."""

    def __init__(self, model: RewardModel, item: Candidates) -> None:
        self._model = model
        self._item = item

    def __call__(self, states: Sequence[State]) -> list[StepScores]:
        if not states:
            return []
        [scores] = self._model.score([self._item.of(*map(_completion, states))])
        return [score.steps or (score.value,) for score in scores]


def _completion(steps: State) -> Completion:
    """The text of the steps, each marked where it ends."""
    return Completion(
        (Message("assistant", "".join(steps)),), step_ends=() if len(steps) < 2 else tuple(accumulate(map(len, steps)))
    )
