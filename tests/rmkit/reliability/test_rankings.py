"""CREAM, the reward gap, PF-PPO's strategies and whose responses are on-policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rmkit.errors import ConfigError, DataError
from rmkit.reliability.cream import consistency, kendall_tau_b
from rmkit.reliability.mpo import split_by_gap
from rmkit.reliability.on_policy import coverage, policy_flags
from rmkit.reliability.pf_ppo import best_strategy, kept_weights, r_squared, replay_weights

scores = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=9)


@given(scores, st.randoms(use_true_random=False))
def test_tau_b_agrees_with_scipy(first: list[float], random: object) -> None:
    second = first[:]
    random.shuffle(second)  # type: ignore[attr-defined]
    found, expected = kendall_tau_b(first, second), kendalltau(first, second).statistic
    assert np.isnan(found) == np.isnan(expected)
    if not np.isnan(found):
        assert found == pytest.approx(expected)


def test_tau_b_by_hand() -> None:
    assert kendall_tau_b([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau_b([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / np.sqrt(2 * 3))
    assert np.isnan(kendall_tau_b([1, 1, 1], [1, 2, 3]))
    assert np.isnan(kendall_tau_b([1, np.nan], [1, 2]))
    with pytest.raises(DataError, match="different lengths"):
        kendall_tau_b([1, 2], [1, 2, 3])


CURRENT = {"p1": [4.0, 3, 2, 1], "p2": [1.0, 2, 3, 4], "p3": [5.0, 5, 5, 5], "p4": [1.0, 9, 2, 3]}
PREVIOUS = {"p2": [4.0, 3, 2, 1], "p1": [4.0, 3, 2, 1], "p3": [1.0, 2, 3, 4]}  # another order, p4 missing


def test_consistency_is_keyed_by_id_and_averages_what_is_known() -> None:
    found = consistency(CURRENT, PREVIOUS)
    # p1: tau 1, c 1; p2: tau -1, c 0; p3 constant; p4 missing -> mean .5 for all
    assert found.mean == 0.5
    assert found.verdicts.soft_label is not None
    assert found.verdicts.soft_label.tolist() == [0.5] * 4
    assert found.best == (0, 3, -1, 1)
    assert found.worst == (3, 0, -1, 0)
    assert found.verdicts.weight.tolist() == [1, 1, 0, 1]
    assert found.verdicts.reason[2].startswith("all rewards are equal")
    assert found.verdicts.facts["without_tau"] == 2


def test_dyn_uses_each_prompts_own_and_never_reverses() -> None:
    found = consistency(CURRENT, PREVIOUS, how="dyn")
    assert found.verdicts.soft_label is not None
    assert found.verdicts.soft_label.tolist() == [1.0, 0.5, 0.5, 0.5]  # p2's 0 is clamped, the missing take the mean
    assert found.verdicts.facts["clamped"] == 1


def test_dyn_needs_four_responses_and_something_to_compare() -> None:
    with pytest.raises(DataError, match="use avg"):
        consistency({"a": [1.0, 2]}, {"a": [1.0, 2]}, how="dyn")
    assert consistency({"a": [1.0, 2]}, {"a": [1.0, 2]}).mean == 1.0
    with pytest.raises(DataError, match="two rankings to compare"):
        consistency({"a": [1.0, 2]}, {"b": [1.0, 2]})


def test_consistency_falls_with_noise_and_follows_correctness() -> None:
    """Spec: latent quality, two noisy scorers, five responses; C falls towards 1/2, and c follows pair correctness."""
    generator = np.random.default_rng(0)
    means, correlation = [], []
    for sigma in (0.1, 1.0, 5.0):
        quality = generator.standard_normal((400, 5))
        now, before = (quality + sigma * generator.standard_normal(quality.shape) for _ in range(2))
        found = consistency(*({str(i): list(row) for i, row in enumerate(x)} for x in (now, before)), how="dyn")
        best, worst = np.array(found.best), np.array(found.worst)
        right = quality[np.arange(400), best] > quality[np.arange(400), worst]
        means.append(found.mean)
        if 0 < right.mean() < 1:
            correlation.append(np.corrcoef(found.verdicts.evidence["consistency"], right)[0, 1])
    assert means[0] > 0.95
    assert means[0] > means[1] > means[2]
    assert means[2] == pytest.approx(0.5, abs=0.04)
    assert max(correlation) > 0.1


def test_the_gap_parts_easy_hard_and_suspect() -> None:
    margin = np.concatenate([np.full(24, 0.1), np.full(2, -0.1), np.full(22, 3.0), np.full(4, -3.0), [np.nan]])
    found = split_by_gap([str(i) for i in range(53)], margin)
    assert found.facts == {"threshold": pytest.approx(1.55), "unscored": 1, "easy": 22, "hard": 26, "suspect": 4}
    assert found.evidence["part"][0] == "hard"
    assert found.evidence["part"][48] == "suspect"
    assert found.reason[48].startswith("suspected mislabel")
    assert found.reason[52] == "no margin"
    assert found.weight.sum() == 22
    assert (found.evidence["sign"][48], found.evidence["sign"][30]) == (-1, 1)


def test_the_gap_needs_fifty_pairs_and_a_quantile() -> None:
    with pytest.raises(DataError, match="scored pairs"):
        split_by_gap([str(i) for i in range(60)], [1.0] * 49 + [np.nan] * 11)
    with pytest.raises(ConfigError, match="quantile"):
        split_by_gap(["a"], [1.0], quantile=1.0)


REWARD = np.array([[1.0, 4, 2, 3], [5.0, 5, -6, 0], [np.nan, 1, 2, np.nan]])
GROUPS = ["g1", "g2", "g3"]


def test_strategies_by_hand() -> None:
    assert kept_weights(GROUPS, REWARD, strategy="bon").tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert kept_weights(GROUPS, REWARD, strategy="bw").tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    assert kept_weights(GROUPS, REWARD, strategy="all")[2].tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(kept_weights(GROUPS, REWARD, strategy="square")[1], [25 / 36, 25 / 36, 1, 0])


def test_the_random_one_is_another_and_stays_with_its_group() -> None:
    found = kept_weights(GROUPS, REWARD, strategy="br")
    assert found.sum(axis=1).tolist() == [2, 2, 2]
    assert (found[[0, 1, 2], [1, 0, 2]] == 1).all()
    turned = kept_weights(GROUPS[::-1], REWARD[::-1], strategy="br")
    np.testing.assert_array_equal(turned[::-1], found)
    drawn = {kept_weights(["g1"], REWARD[:1], strategy="br", seed=seed)[0].argmin() for seed in range(40)}
    assert len(drawn) > 1
    alone = kept_weights(["g"], [[1.0, np.nan]], strategy="br")
    assert alone.tolist() == [[1, 0]]


def test_replay_probabilities() -> None:
    np.testing.assert_allclose(replay_weights([[1.0, 5, 2, 3, 4]])[0], [0.125, 0.5, 0.125, 0.125, 0.125])
    assert replay_weights([[np.nan, np.nan]]).tolist() == [[0, 0]]


def test_r_squared_of_bin_means_by_hand() -> None:
    reward, truth = np.arange(6.0), np.array([0.0, 2, 2, 4, 10, 10])
    # three bins of two: x = .5, 2.5, 4.5; y = 1, 3, 10
    expected = np.corrcoef([0.5, 2.5, 4.5], [1, 3, 10])[0, 1] ** 2
    assert r_squared(reward, truth, np.ones(6), bins=3) == pytest.approx(expected)
    assert r_squared(reward, truth, [1, 1, 1, 1, 1, 0], bins=5) < 1
    assert np.isnan(r_squared(reward, np.ones(6), np.ones(6), bins=3))
    assert np.isnan(r_squared(reward[:2], truth[:2], np.ones(2)))


def test_the_best_strategy_avoids_where_the_reward_says_nothing() -> None:
    """An uninformative middle: best-against-worst keeps mostly the ends, where reward and truth agree."""
    measured: dict[str, list[float]] = {}
    wins = 0
    for seed in range(6):
        generator = np.random.default_rng(seed)
        truth = generator.standard_normal((300, 5))
        middle = np.abs(truth) < 1
        reward = truth + 0.1 * generator.standard_normal(truth.shape)
        reward[middle] = generator.uniform(-1, 1, middle.sum())
        best, found = best_strategy([str(i) for i in range(300)], reward, truth, strategies=("all", "bon", "br", "bw"))
        assert found[best] == max(found.values())
        for name, value in found.items():
            measured.setdefault(name, []).append(value)
        wins += best == "bw"
    assert wins >= 4
    assert max(measured, key=lambda name: np.mean(measured[name])) == "bw"


def test_a_strategy_that_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="cannot be measured"):
        best_strategy(["a"], [[1.0, 2]], [[1.0, 2]])


def test_wrong_strategies_and_shapes() -> None:
    with pytest.raises(ConfigError, match="strategy"):
        kept_weights(GROUPS, REWARD, strategy="top")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="need rewards"):
        kept_weights(["g1"], REWARD, strategy="bon")


def test_unknown_is_not_on_policy() -> None:
    found = policy_flags(
        ["a", "b", "c", "d"],
        ["m@3", "m@2", "m@1", None],
        policy="m@3",
        logp_now=[-1.0, -1.05, -2.0, -1.0],
        logp_then=[-1.0, -1.0, -1.0, -1.0],
    )
    assert found.evidence["flag"].tolist() == ["on", "near", "off", "unknown"]
    assert found.weight.tolist() == [1, 1, 0, 0]
    assert found.reason[3] == "generator not recorded"
    without = policy_flags(["a", "b"], ["m@2", "m@3"], policy="m@3")
    assert without.evidence["flag"].tolist() == ["off", "on"]


def test_coverage_of_the_reward_peak() -> None:
    reward = np.arange(100.0)
    share, low = coverage(reward, 99.0)
    assert share == pytest.approx(np.mean(reward >= 99 - reward.std()))
    assert not low
    assert coverage(reward, 200.0) == (0.0, True)
    with pytest.raises(DataError, match="reference rewards"):
        coverage(reward[:10], 9.0)
