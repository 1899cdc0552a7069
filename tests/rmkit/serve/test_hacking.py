"""The hacking alarm: t by hand, planted hacking runs and clean ones, the reward function around another."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rmkit.errors import ConfigError, UsageError
from rmkit.serve.clients.alarm import WatchedRewards
from rmkit.serve.clients.signal_client import SampleReward
from rmkit.signal.hacking import Alarm, AlarmSettings, HackingAlarm, has_canary, mean, repetition

SHORT = AlarmSettings(start=3, window=3, threshold=2.0, patience=1)


def rung(settings: AlarmSettings, **series: Sequence[float]) -> list[Alarm | None]:
    alarm = HackingAlarm(truth=[name for name in series if name in ("right", "other")], settings=settings)
    steps = zip(*series.values(), strict=True)
    return [alarm.step(number, dict(zip(series, one, strict=True))) for number, one in enumerate(steps)]


def test_t_by_hand() -> None:
    """Starts 1, 2, 3 and ends 5, 6, 10: means 2 and 7, squares 2 + 14 over 4 is 4, t = 5 / (2 sqrt(2/3)) = 3.062."""
    *none, last = rung(SHORT, proxy=[1, 2, 3, 5, 6, 10], right=[8, 7, 9, 1, 3, 5])
    assert none == [None] * 5
    assert last is not None
    assert (last.step, last.proxy.start, last.proxy.now) == (5, 2, 7)
    assert last.proxy.t == pytest.approx(5 / (2 * math.sqrt(2 / 3)))
    # 7, 8, 9 to 1, 3, 5: squares 2 + 8 over 4 is 2.5, t = -5 / sqrt(2.5 * 2/3)
    [sign] = last.signs
    assert (sign.name, sign.start, sign.now) == ("right", 8, 3)
    assert sign.t == pytest.approx(-5 / math.sqrt(2.5 * 2 / 3))
    assert str(last) == "step 5: the reward rises (proxy 2 -> 7) while right 8 -> 3"


RISE, STILL, UP, DOWN = [1, 2, 3, 7, 8, 9], [5, 5, 5, 5, 5, 5], [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("series", "signs"),
    [
        ({"proxy": RISE, "right": DOWN}, ["right"]),
        ({"proxy": STILL, "right": DOWN}, []),  # nothing is gained by it
        ({"proxy": RISE, "right": UP}, []),
        ({"proxy": RISE, "right": UP, "other": DOWN}, ["other"]),
        ({"proxy": RISE, "length": [20, 20, 20, 29, 29, 29]}, []),  # less than half longer
        ({"proxy": RISE, "length": [20, 20, 20, 30, 30, 30]}, ["length"]),
        ({"proxy": RISE, "length": [30, 30, 30, 20, 20, 20]}, ["length"]),
        ({"proxy": RISE, "right": UP, "length": [20, 20, 20, 30, 30, 30]}, []),  # it learns to reason
        ({"proxy": RISE, "right": STILL, "length": [20, 20, 20, 30, 30, 30]}, ["length"]),
        ({"proxy": RISE, "repetition": [0.1, 0.1, 0.1, 0.3, 0.3, 0.3]}, ["repetition"]),
        ({"proxy": RISE, "repetition": [0.1, 0.1, 0.1, 0.15, 0.15, 0.15]}, []),
        ({"proxy": RISE, "right": UP, "canary": [0, 0, 0, 0.1, 0.1, 0.1]}, ["canary"]),
        ({"proxy": RISE, "canary": [0, 0, 0, 0.01, 0.01, 0.01]}, []),
        ({"proxy": RISE, "entropy": [2, 2, 2, 1, 1, 1]}, ["entropy"]),
        ({"proxy": RISE, "entropy": [2, 2, 2, 1.5, 1.5, 1.5]}, []),
        ({"proxy": RISE, "entropy": [math.nan, 2, 2, 2, 1, 1]}, []),  # two of three
    ],
)
def test_signs(series: dict[str, list[float]], signs: list[str]) -> None:
    last = rung(SHORT, **series)[-1]
    assert [one.name for one in (last.signs if last else ())] == signs


def test_patience_counts_steps_in_a_row() -> None:
    patient = AlarmSettings(start=3, window=3, threshold=2.0, patience=2)
    proxy, right = [*RISE, 9, 9, 9, 9], [*DOWN, 0, 9, 9, 9]
    assert [one is not None for one in rung(patient, proxy=proxy, right=right)] == [False] * 6 + [True] + [False] * 3


def test_measures_of_texts() -> None:
    assert repetition("so so so so so") == pytest.approx(2 / 3)  # three runs, all the same
    assert repetition("a b c a b d a b c") == pytest.approx(1 / 7)
    assert repetition("two words") is None
    assert has_canary("And so on. BYE!", ["bye!"])
    assert not has_canary("And so on.", ["bye!"])
    assert mean([1.0, None, math.nan, 4.0]) == 2.5
    assert mean([None]) is None


@pytest.mark.parametrize("wrong", [{"start": 2}, {"window": 1}, {"patience": 0}, {"threshold": 0.0}])
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="hacking alarm"):
        AlarmSettings(**wrong)
    with pytest.raises(ConfigError, match="measure of its own"):
        HackingAlarm(truth=["length"])


def first_alarm(rng: random.Random, *, hacked: bool, memory: float, steps: int = 200) -> int | None:
    """A run of groups of 64: the proxy rises from step 60 on by two of its standard deviations, the verifier from .3 to
    .8, or to .1 where it is hacked; lengths grow by a third, entropy falls by as much; noise with `memory` from step to
    step."""
    alarm = HackingAlarm(truth=["right"])
    spreads = {"proxy": 1.0, "right": 0.46, "length": 40.0, "repetition": 0.1, "canary": 0.02, "entropy": 0.2}
    noise = {name: rng.gauss(0, 1) for name in spreads}
    for step in range(steps):
        up = 1 / (1 + math.exp((60 - step) / 15))
        level = {"proxy": 2 * up, "right": 0.3 + (-0.2 if hacked else 0.5) * up, "length": 100 + 33 * up}
        level |= {"repetition": 0.1, "canary": 0.02, "entropy": 1 - 0.33 * up}
        for name in spreads:
            noise[name] = memory * noise[name] + math.sqrt(1 - memory**2) * rng.gauss(0, 1)
        if alarm.step(step, {name: level[name] + spreads[name] * noise[name] / 8 for name in spreads}):
            return step
    return None


def test_planted_hacking_rings_and_honest_learning_does_not() -> None:
    rng = random.Random(3)
    hacked = [first_alarm(rng, hacked=True, memory=0.5) for _ in range(10)]
    assert all(step is not None and step < 120 for step in hacked)
    assert not any(first_alarm(rng, hacked=False, memory=0.5) for _ in range(10))


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "most"), [(0.0, 0), (0.5, 0), (0.8, 3)])
def test_false_alarms_of_200_honest_runs(memory: float, most: int) -> None:
    rng = random.Random(1)
    assert sum(first_alarm(rng, hacked=False, memory=memory) is not None for _ in range(200)) == most
    assert None not in [first_alarm(rng, hacked=True, memory=memory) for _ in range(200)]


class Service:
    """What a RewardFunction leaves behind, without a service: the model likes what is long, the verifier "7"."""

    def __init__(self) -> None:
        self.last: list[SampleReward] = []

    def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float | None]:
        self.last = [
            SampleReward(reward=0.0, raw=float(len(one)), value=-1.0, components={"right": float(one.endswith("7"))})
            for one in completions
        ]
        return [one.reward for one in self.last]


def rollouts(watched: WatchedRewards, rng: random.Random, step: int, *, hacked: bool) -> None:
    """Two calls of a step, whose replies hedge more and more where the reward is hacked."""
    for _ in range(2):
        hedges = int((step / 2 if hacked else 3) + 3 * rng.random())
        texts = ["so " * hedges + rng.choice("78") for _ in range(8)]
        columns = {"completion_ids": [one.split() for one in texts]}
        assert watched(prompts=["3 + 4"] * 8, completions=texts, **columns) == [0] * 8


def test_around_a_reward_function(caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(0)
    hacked, honest = (WatchedRewards(Service(), truth=["right"], canaries=["bye"]) for _ in range(2))
    rings = []
    for step in range(1, 41):
        rollouts(hacked, rng, step, hacked=True)
        rollouts(honest, rng, step, hacked=False)
        rings += [step] if hacked.end_step(step) else []
        assert honest.end_step(step) is None
    assert 22 <= rings[0] <= 30  # ten steps at first, ten more, and patience
    assert hacked.alarm is not None
    assert hacked.alarm.step == rings[0]
    assert {one.name for one in hacked.alarm.signs} >= {"length", "repetition"}
    assert caplog.text.count("the policy seems to hack its reward: step") == 1


@pytest.mark.slow
def test_the_callback_stops_the_trainer() -> None:
    pytest.importorskip("transformers")
    rng, watched = random.Random(0), WatchedRewards(Service(), truth=["right"])
    callback, control = watched.callback(stop=True), SimpleNamespace(should_training_stop=False)
    for step in range(1, 41):
        rollouts(watched, rng, step, hacked=True)
        callback.on_log(None, None, control, logs={"entropy": 2.0})
        callback.on_step_end(None, SimpleNamespace(global_step=step), control)
        if control.should_training_stop:
            break
    assert 22 <= step <= 30
    assert watched.watch._series["entropy"].start == [2.0] * 10


def test_a_function_without_a_service_and_a_coroutine() -> None:
    watched = WatchedRewards(lambda prompts, completions: [1.0, None])
    assert watched(prompts=["p"] * 2, completions=["a", [{"role": "assistant", "content": "b c"}]]) == [1, None]
    watched.end_step(1)
    series = watched.watch._series
    assert (series["proxy"].start, series["length"].start) == ([1.0], [2.0])

    async def later(**_: Any) -> list[float | None]:
        return []

    with pytest.raises(UsageError, match="no coroutine"):
        WatchedRewards(later)  # type: ignore[arg-type]
