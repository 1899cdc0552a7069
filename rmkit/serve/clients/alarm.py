"""A hacking alarm in the trainer (TRL): rewards rise while verifier, length, repetition, canaries or entropy object.

    reward = WatchedRewards(RewardFunction("http://HOST:PORT", signal="math"), truth=["right"], canaries=["Bye!"])
    trainer = GRPOTrainer(model, reward_funcs=reward, callbacks=[reward.callback(stop=True)], ...)

`rmkit.signal.hacking` says when it rings. The proxy is what the service gave before its chain (a normalized reward has
no trend), or the component that `proxy` names; where the function asks no service, its own reward. Components named in
`truth` must come with the rewards: a weight of 0 in the signal's mix brings one along on which nothing is trained. The
entropy is TRL's own, at the steps that it logs.
"""

from __future__ import annotations

import inspect
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rmkit.errors import DataError, UsageError
from rmkit.serve.clients.chat_values import candidates
from rmkit.serve.clients.signal_client import SampleReward
from rmkit.signal import hacking
from rmkit.signal.hacking import Alarm, AlarmSettings, HackingAlarm

if TYPE_CHECKING:
    from transformers import TrainerCallback

log = logging.getLogger(__name__)


class WatchedRewards:
    """Called by the trainer in place of `function`, whose rewards it passes on; `alarm` is the first one that rang."""

    def __init__(
        self,
        function: Callable[..., list[float | None]],
        *,
        truth: Sequence[str] = (),
        canaries: Sequence[str] = (),
        proxy: str | None = None,
        settings: AlarmSettings | None = None,
    ) -> None:
        if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
            raise UsageError("WatchedRewards takes a plain reward function, no coroutine; use RewardFunction")
        self.__name__ = getattr(function, "__name__", "watched_rewards")
        self.function, self.truth, self.canaries, self.proxy = function, tuple(truth), tuple(canaries), proxy
        self.watch = HackingAlarm(truth=self.truth, settings=settings or AlarmSettings())
        self._new: dict[str, list[float | None]] = defaultdict(list)

    @property
    def alarm(self) -> Alarm | None:
        return self.watch.alarm

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The function's rewards, unchanged."""
        rewards = self.function(prompts=prompts, completions=completions, **columns)
        answers: Sequence[SampleReward] = getattr(self.function, "last", None) or ()
        if len(answers) == len(rewards):
            self._new[hacking.PROXY] += map(self._proxy, answers)
            for name in self.truth:
                self._new[name] += [one.components.get(name) for one in answers]
        else:
            self._new[hacking.PROXY] += rewards
        texts = list(map(_text, completions))
        ids = columns.get("completion_ids")
        self._new[hacking.LENGTH] += [float(len(one)) for one in (texts if ids is None else ids)]
        self._new[hacking.REPETITION] += map(hacking.repetition, texts)
        if self.canaries:
            self._new[hacking.CANARY] += [float(hacking.has_canary(text, self.canaries)) for text in texts]
        return rewards

    def _proxy(self, one: SampleReward) -> float | None:
        if self.proxy is not None:
            return one.components.get(self.proxy)
        return one.value if one.raw is None else one.raw

    def end_step(self, number: int) -> Alarm | None:
        """Judge what came since the last step; without a new completion nothing happens."""
        if not self._new:
            return None
        measures = {name: hacking.mean(values) for name, values in self._new.items()}
        self._new.clear()
        first = self.alarm is None
        alarm = self.watch.step(number, measures)
        if alarm is not None and first:
            log.warning("the policy seems to hack its reward: %s", alarm)
        return alarm

    def callback(self, *, stop: bool = False) -> TrainerCallback:
        """What the trainer calls after each step; `stop` ends training when the alarm rings."""
        from transformers import TrainerCallback

        watched = self

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if watched.end_step(state.global_step) is not None and stop:
                    control.should_training_stop = True

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if isinstance(value := (logs or {}).get("entropy"), int | float):
                    watched._new[hacking.ENTROPY].append(float(value))

        return Watch()


def _text(completion: Any) -> str:
    try:
        return candidates("", [completion]).completions[0].text
    except DataError:  # which the reward function has said already
        return ""
