"""The models of a service by name, each behind its batcher: the one way in for every route.

Routes of all dialects call `await engine.score(name, items, call=...)`; whatever is not answered raises HttpError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rmkit.serve.http.problems import HttpError
from rmkit.serve.queue.batcher import Answer, Batcher, Call
from rmkit.serve.rewards.request import Reward, RewardRequest
from rmkit.serve.rewards.reward_log import Served
from rmkit.serve.settings import ServeSettings
from rmkit.signal.signal import Signal
from rmkit.types import Candidates, Comparison, RewardModel, Score


class Engine:
    """`models` by the names under which they are served; the first is the default.

    `observers` hear of every request that was answered: the reward log, the counters. `signals` by name are those that
    requests may name; the first is for trainers that send nothing.
    """

    def __init__(
        self,
        models: Mapping[str, RewardModel],
        settings: ServeSettings | None = None,
        *,
        observers: Sequence[Callable[[Served], None]] = (),
        signals: Mapping[str, Signal] | None = None,
    ) -> None:
        self.settings = settings or ServeSettings()
        self.batchers = {name: Batcher(model, self.settings) for name, model in models.items()}
        self.default = next(iter(models))
        self.observers = observers
        self.signals = dict(signals or {})

    async def score(
        self, name: str | None, items: Sequence[Candidates], *, call: Call, by: RewardModel | None = None
    ) -> list[list[Score]]:
        """[P][N] scores of the named model (None: the default). Raises HttpError.

        `by` is the model that was served under the name when the request was read, where that took a while.
        """
        answer = await self.score_answer(name, items, call=call, by=by)
        self.observe(name, items, call, answer)
        return answer.results

    async def score_answer(
        self, name: str | None, items: Sequence[Candidates], *, call: Call, by: RewardModel | None = None
    ) -> Answer[list[Score]]:
        """As `score`, with the model's info and timings, and not told to the observers: see `observe`."""
        self._check(items)
        return await self.batcher(name).score(items, call=self._bounded(call), by=by)

    async def compare_answer(self, name: str | None, items: Sequence[Candidates], *, call: Call) -> Answer[Comparison]:
        """[P] comparisons with the model's info and timings. Raises HttpError."""
        self._check(items)
        if wrong := [len(item.completions) for item in items if len(item.completions) != 2]:
            raise HttpError(400, f"a comparison takes two completions, got {wrong[0]}")
        answer = await self.batcher(name).compare(items, call=self._bounded(call))
        self.observe(name, items, call, answer)
        return answer

    def batcher(self, name: str | None) -> Batcher:
        """The named model's batcher (None: the default's). Raises HttpError 404."""
        result = self.batchers.get(name or self.default)
        if result is None:
            raise HttpError(404, f"no model {name!r} here; one of: {', '.join(self.batchers)}")
        return result

    def model(self, name: str | None) -> RewardModel:
        """The model that answers requests coming in now. Raises HttpError 404."""
        return self.batcher(name).model

    def close(self) -> None:
        """Answer what waits, then stop."""
        for batcher in self.batchers.values():
            batcher.close()

    def refuse_if_full(self) -> None:
        """Raise the HttpError (429) of a service all of whose queues are full."""
        *others, last = self.batchers.values()
        for batcher in others:
            if not batcher.full:
                return
        last.refuse_if_full()

    def observe(
        self,
        name: str | None,
        items: Sequence[Candidates],
        call: Call,
        answer: Answer[Any],
        *,
        request: RewardRequest | None = None,
        rewards: Sequence[Sequence[Reward]] = (),
    ) -> None:
        """Tell the observers of an answered request, with what its signal made of it."""
        for observer in self.observers if items else ():
            observer(Served(name or self.default, items, call, answer, request, rewards))

    def signal(self, name: str | None) -> Signal | None:
        """The named signal, the first where none is named, None where there is none. Raises HttpError 404."""
        if name is None:
            return next(iter(self.signals.values()), None)
        if name not in self.signals:
            served = ", ".join(self.signals) or "none (rmkit serve --signal FILE.toml)"
            raise HttpError(404, f"no signal {name!r} here; one of: {served}")
        return self.signals[name]

    def deadline(self, call: Call) -> float:
        """When the call must be answered, by the clock of time.monotonic."""
        return call.deadline or time.monotonic() + self.settings.timeout_s

    def _check(self, items: Sequence[Candidates]) -> None:
        if (total := sum(len(item.completions) for item in items)) > self.settings.max_completions:
            raise HttpError(
                413, f"{total} completions in one request; at most {self.settings.max_completions} are taken"
            )

    def _bounded(self, call: Call) -> Call:
        """With the service's own deadline where the caller has none."""
        return replace(call, deadline=self.deadline(call))
