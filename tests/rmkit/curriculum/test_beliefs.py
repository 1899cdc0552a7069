"""Beliefs, bandits, trackers, flags and what is done with hard prompts: numbers by hand from the publications."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from rmkit.curriculum.bandits import Arm, dump, sec
from rmkit.curriculum.beta import Beta
from rmkit.curriculum.buckets import agreement, bucket, disputed
from rmkit.curriculum.drift_average import DriftAverage
from rmkit.curriculum.flags import flags
from rmkit.curriculum.hints import Replacement, next_tier, partial_solution, scaffold, self_hinted
from rmkit.curriculum.observation import Observation, observation_of
from rmkit.curriculum.record import BookSettings, PromptRecord
from rmkit.curriculum.recovery import next_batch
from rmkit.curriculum.replay import Win, replacement, stored
from rmkit.curriculum.routing import Solved, demonstrations, next_stage
from rmkit.curriculum.trackers import Mean, Quantile, count_bonus
from rmkit.curriculum.utilities import UTILITIES, chosen
from rmkit.curriculum.value_model import ValueModel
from rmkit.errors import ConfigError, DataError


def test_the_beta_belief_forgets_as_mopps_does() -> None:
    assert Beta().observed(6, 8, decay=0.5) == (7, 3)
    assert Beta().observed(6, 8) == (7, 3)  # from the prior, forgetting changes nothing
    assert Beta(7, 3).observed(1, 4, decay=0.5) == (5, 5)  # 3.5 + .5 + 1 and 1.5 + .5 + 3
    assert Beta(7, 3).observed(1, 4) == (8, 6)
    assert Beta(7, 3).observed(0, 0, decay=0.5) == (7, 3)
    assert Beta(7, 3).variance == pytest.approx(21 / 1100)


def test_spo_averages_forget_with_the_policys_drift() -> None:
    """Memory 2^(-D / .06) in [.875, .96]: no drift .96, .006 2^-.1 = .933, much drift .875."""
    assert DriftAverage(3, 1).observed(1.0) == pytest.approx((0.96 * 3 + 1, 0.96))
    assert DriftAverage(3, 1).observed(0.25, drift=0.006) == pytest.approx((2**-0.1 * 3 + 0.25, 2**-0.1 + 0.75))
    assert DriftAverage(3, 1).observed(0.0, drift=5) == pytest.approx((2.625, 1.875))
    assert DriftAverage(3, 1).baseline == 0.75


def test_bandits_over_categories() -> None:
    arm = Arm().observed(0.8, 8).observed(0.2, 8)
    assert arm.value == pytest.approx(0.5 * 0.4 + 0.1)
    assert arm.decayed().value == pytest.approx(0.15)
    assert sec({"a": Arm(0.3), "b": Arm(0.7)}, temperature=0.4) == pytest.approx(
        {"a": 1 / (1 + math.e), "b": math.e / (1 + math.e)}
    )
    # N = 24 rollouts; mean .5 of 16, nothing of none, .1 of 8.
    arms = {"a": Arm(0, ((0.8, 8), (0.2, 8)), 16), "new": Arm(), "c": Arm(0, ((0.1, 8),), 8)}
    a, new, c = (
        0.5 + math.sqrt(2 * math.log(25) / 17),
        math.sqrt(2 * math.log(25)),
        0.1 + math.sqrt(2 * math.log(25) / 9),
    )
    powers = [math.exp(x / 0.5) for x in (a, new, c)]
    assert list(dump(arms, temperature=0.5).values()) == pytest.approx([x / sum(powers) for x in powers])
    assert Arm().observed(1, 200).observed(2, 200).observed(3, 200).window == ((2, 200), (3, 200))


def test_trackers() -> None:
    tracker = Quantile(0.2, 3.0).observed([1, 2, 4, 5])
    assert tracker.value == pytest.approx(3 + 0.1 * (0.2 - 0.5))
    assert Quantile(0.8).value is None
    draw = random.Random(0)
    tracker = Quantile(0.2)
    for _ in range(4000):
        tracker = tracker.observed([draw.gauss(0, 1) for _ in range(8)], rate=0.02)
    assert tracker.value == pytest.approx(-0.8416, abs=0.06)
    assert Mean().observed([1.0, 3.0]).observed([5.0]).value == 3.5
    assert Mean().value is None
    assert [count_bonus(n, exponent=0.5) for n in (0, 1, 4)] == [1, 1, 0.5]


def test_flags_need_enough_attempts() -> None:
    assert flags([0] * 7) == ()
    assert flags([1, 1] + [0] * 8) == ("all_fail",)
    assert flags([0.5] + [1] * 8) == ("all_pass",)
    assert flags([0, 1] * 8) == ("plateau",)
    assert flags([0] * 8 + [0, 1] * 4) == ()
    assert flags([0] * 8 + [0, 1] * 4, gain=0.5) == ("plateau",)


def test_buckets_and_agreement() -> None:
    assert [bucket(k / 4) for k in range(5)] == ["hard", "hard", "medium", "easy", "easy"]
    assert bucket(0.3) == "hard"
    assert agreement([1, 0, None, 0]) == pytest.approx(1 / 3)
    assert disputed([1, 0, 0])
    assert not disputed([1, 0])
    assert not disputed([None])


def test_scaffolds_replace_one_rollout_by_the_weakest_hint_that_works() -> None:
    """And GRPO of the group with it gives Scaf-GRPO's numbers."""
    from rmkit.shaping import Group, chain

    assert scaffold([0] * 8, [0, 0, 1, 1]) == Replacement(7, 3)
    assert scaffold([0, 1, 0], [1]) is None
    assert scaffold([0, 0], [0, None]) is None
    assert scaffold([0, None], [1]) == Replacement(0, 1)
    group = [0.0] * 7 + [1.0]
    assert chain("grpo").apply(Group.of(reward=group))["reward"] == pytest.approx([-0.3536] * 7 + [2.4749], abs=6e-5)


def test_hint_ladders_and_self_written_hints() -> None:
    assert [partial_solution("abcdefghij", tier) for tier in range(5)] == [None, "ab", "abcde", "abcdefgh", None]
    assert [next_tier(True, tier, tiers=3) for tier in range(4)] == [1, 2, 3, None]
    assert next_tier(False, 2, tiers=3) == 2
    assert self_hinted(4) == [True, True, True, False]


def test_routing_of_prompts_that_nobody_solves() -> None:
    assert next_stage([0, 0], "direct") == "decompose"
    assert next_stage([0, None], "decompose") == "reflect"
    assert next_stage([0, 0], "reflect") is None
    assert next_stage([0, 1], "direct") is None
    assert next_stage([None], "direct") is None
    assert demonstrations({"direct": [0, 0], "decompose": [0, 1]}) == [Solved("decompose", 1)]


def test_replay_of_wins() -> None:
    wins = stored((), [Win(f"r{i}", i / 10) for i in range(12)])
    assert [win.rollout for win in wins] == [f"r{i}" for i in range(4, 12)]
    rng = np.random.default_rng(0)
    assert replacement([0.1, 0.05, 0, 0.05], wins, rng) in wins
    assert replacement([0, 0, 0, 0.5], wins, rng) is None  # deviation .22
    assert replacement([0.3, 0.3], wins, rng) is None  # mean .3
    assert replacement([0, 0], (), rng) is None


def test_recovery_opens_the_next_batch_only() -> None:
    rewards = {"a": [1, 0], "b": [1, 1], "c": [0, 1], "d": [0, 1, None], "e": [1, -1]}
    batch = next_batch([], list("abcde"), rewards.__getitem__, 2)
    assert batch == (["a", "c"], ["d", "e"])
    assert next_batch(batch.left, ["a"], rewards.__getitem__, 1) == (["d"], ["a"])


def test_the_value_model_recovers_a_line() -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(400, 3))
    y = np.clip(0.5 + x @ [0.05, -0.1, 0.02], 0, 1)
    model = ValueModel.fit(x, y, np.full(400, 8), ridge=1e-6)
    assert model.weights == pytest.approx([0.05, -0.1, 0.02], abs=1e-3)
    assert model.predict([[0, 0, 0], [0, -9, 0]]) == pytest.approx([0.5, 1.0], abs=2e-3)
    weighted = ValueModel.fit([[0.0], [0.0]], [0.0, 1.0], [3, 1])
    assert weighted.predict([[0.0]]) == pytest.approx([0.25])
    assert ValueModel.fit([[1.0]], [np.nan], [0]).predict([[2.0]]) == [0.5]
    with pytest.raises(DataError, match="P pass rates"):
        ValueModel.fit([[1.0]], [1, 2], [1])


@pytest.mark.parametrize("utility", UTILITIES)
def test_utilities_choose_what_they_say(utility: str) -> None:
    a, b = np.array([100.0, 50.0, 1.0]), np.array([2.0, 50.0, 100.0])
    order = chosen(
        utility, 3, np.random.default_rng(0), a=a, b=b, n=a + b - 2, advantage=np.array([0.1, 0.9, 0.3]),
        value=np.array([0.9, 0.45, 0.1]),
    )  # fmt: skip
    assert sorted(order) == [0, 1, 2]
    if utility not in ("uniform", "spo"):
        assert order[0] == 1
    if utility == "spo":
        firsts = [
            chosen("spo", 1, np.random.default_rng(seed), a=a, b=b, n=a, advantage=a, value=a)[0]
            for seed in range(1200)
        ]
        p = a / (a + b)
        weight = np.sqrt(p * (1 - p)) + 0.05
        assert np.bincount(firsts) / 1200 == pytest.approx(weight / weight.sum(), abs=0.05)


def test_a_record_counts_bare_scored_answers_only() -> None:
    settings = BookSettings(threshold=0.5)
    record = PromptRecord().observed(Observation(prompt="p", rewards=(1.0, None, 0.2, float("nan"))), settings)
    assert (record.n, record.groups, record.unscored, record.belief) == (2, 1, 2, (2, 2))
    hinted = record.observed(Observation(prompt="p", rewards=(1.0, 1.0), tier=2), settings)
    assert (hinted.n, hinted.belief, hinted.tier) == (2, (2, 2), 2)
    assert record.observed(Observation(prompt="p", rewards=(None,)), settings).belief == record.belief
    part = PromptRecord().observed(Observation(prompt="p", rewards=(0.25, 3.0)), BookSettings())
    assert part.belief == (2.25, 1.75)  # a quarter and a whole success
    assert PromptRecord.of(hinted.as_json()) == hinted
    # |A| of (1, .2): deviation .5657, distance .4
    assert record.advantage == pytest.approx(0.4 / 0.56568, abs=1e-4)


def test_observations_of_json() -> None:
    one = Observation(prompt="p", rewards=(1.0, None), category="algebra", rollouts=("x", "y"))
    assert observation_of(one.as_json()) == one
    assert "drift" not in one.as_json()
    with pytest.raises(DataError, match="unknown key 'reward'; did you mean 'rewards'"):
        observation_of({"prompt": "p", "reward": [1]})
    for wrong, message in (
        ({"prompt": 3}, "prompt: got 3"),
        ({"prompt": "p", "rewards": ["1"]}, "expected numbers or null, got '1'"),
        ({"prompt": "p", "tier": 1.5}, "tier: got 1.5"),
        ({"prompt": ""}, "needs a prompt"),
        ({"rewards": [1]}, "prompt"),
    ):
        with pytest.raises(DataError, match=message):
            observation_of(wrong)
    with pytest.raises(ConfigError, match="1 names of rollouts for 2 rewards"):
        Observation(prompt="p", rewards=(1, 2), rollouts=("x",))


def test_no_number_that_a_trainer_sends_stops_the_book() -> None:
    """|A| of 3, 1, 1 is (4/3 + 2/3 + 2/3) / 3 / (2 / sqrt 3) = .7698, of 1e308 times them as well."""
    for scale in (1.0, 1e308 / 3):
        record = PromptRecord().observed(Observation(prompt="p", rewards=(3 * scale, scale, scale)), BookSettings())
        assert record.advantage == pytest.approx(8 / 9 / (2 / math.sqrt(3)), rel=1e-5)
    odd = Observation(prompt="p", rewards=(10**400, math.nan, -math.inf, 1.0), rollouts=("a", "b", "c", "d"))
    assert odd.scored == [1.0]
    assert odd.as_json()["rewards"] == [None, None, None, 1.0]
    record = PromptRecord().observed(odd, BookSettings())
    assert (record.n, record.unscored, [win.rollout for win in record.wins]) == (1, 3, ["d"])
    for key in ("advantage", "drift", "score", "entropy"):
        for value in (math.nan, math.inf, 1e308, 10**400):
            with pytest.raises(DataError, match=f"{key}: expected a number up to 1e.100"):
                observation_of({"prompt": "p", key: value})
