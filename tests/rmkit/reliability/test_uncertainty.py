"""Dropout passes, BALD, agreement, selectors, smoothing and the mix of the next round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from rmkit.errors import ConfigError, DataError
from rmkit.heads.pair_estimator import EstimatorConfig, PairEstimator
from rmkit.reliability.label_weights import LabelWeights
from rmkit.reliability.uncertainty import LARGEST_BALD, Uncertainty, from_margins
from rmkit.reliability.upo import (
    MixConfig,
    UpoConfig,
    draw,
    mix,
    sampling_weights,
    select_certain,
    smoothing,
    widest,
)
from tests.rmkit.reliability.reliability_data import flips, planted_pairs

QUICK = EstimatorConfig(hidden=32, epochs=8, batch_pairs=40, lr=3e-3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_bald_by_hand() -> None:
    found = Uncertainty(np.array([[1.0, 0.5, 0.9, 0.2], [0.0, 0.5, 0.9, 0.6]]))
    entropy = lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p)  # noqa: E731
    expected = [np.log(2), 0.0, 0.0, entropy(0.4) - (entropy(0.2) + entropy(0.6)) / 2]
    np.testing.assert_allclose(found.bald, expected, atol=1e-9)
    np.testing.assert_allclose(found.mean, [0.5, 0.5, 0.9, 0.4])
    np.testing.assert_allclose(found.variance, [0.25, 0, 0, 0.04])
    np.testing.assert_allclose(found.vote, [0.5, 0.5, 1.0, 0.5])


def test_the_largest_bald_is_that_of_certain_passes_that_disagree() -> None:
    assert Uncertainty(np.array([[0.0], [1.0]])).bald[0] == pytest.approx(np.log(2) - 1e-10, abs=1e-6)


@given(numpy_st.arrays(np.float64, (4, 6), elements=st.floats(0, 1)))
def test_bald_lies_between_zero_and_ln_two_and_ignores_direction(passes: np.ndarray) -> None:
    found, reversed_ = Uncertainty(passes), Uncertainty(1 - passes)
    assert (found.bald >= 0).all()
    assert (found.bald <= LARGEST_BALD + 1e-9).all()
    np.testing.assert_allclose(found.bald, reversed_.bald, atol=1e-9)
    np.testing.assert_allclose(found.vote, 1 - reversed_.vote)


def test_passes_that_are_no_probabilities_or_too_few() -> None:
    with pytest.raises(DataError, match="two passes or more"):
        Uncertainty(np.array([[0.5, 0.4]]))
    with pytest.raises(DataError, match="from_margins"):
        Uncertainty(np.array([[1.5], [0.2]]))


def test_margins_of_a_model_whose_dropout_sleeps_are_refused() -> None:
    assert from_margins([[0.0, 2.0], [0.0, 1.0]]).mean[0] == 0.5
    with pytest.raises(DataError, match="dropout is not active"):
        from_margins([[0.3, 2.0], [0.3, 2.0]])


def test_the_estimator_learns_order_and_is_exactly_antisymmetric() -> None:
    estimator = PairEstimator(32, QUICK).fit(planted_pairs(300))
    new = planted_pairs(200, seed=5)
    p = estimator.probability(new)
    assert (p > 0.5).mean() > 0.65
    swapped = new.flipped(np.ones(200, dtype=bool))
    np.testing.assert_allclose(estimator.probability(swapped), 1 - p, atol=1e-6)
    np.testing.assert_allclose(estimator.uncertainty(swapped).passes, 1 - estimator.uncertainty(new).passes, atol=1e-6)


def test_passes_are_thinned_networks_and_do_not_depend_on_the_batch() -> None:
    estimator = PairEstimator(32, QUICK, seed=3).fit(planted_pairs(120))
    new = planted_pairs(60, seed=6)
    found = estimator.uncertainty(new)
    assert found.passes.shape == (10, 60)
    assert found.variance.min() > 0
    np.testing.assert_allclose(estimator.uncertainty(new.take([7, 3])).passes, found.passes[:, [7, 3]], atol=1e-6)
    many = PairEstimator(32, replace(QUICK, passes=4000), seed=3)
    many.weights = estimator.weights
    thinned = many._thinned() / estimator.weights["out"][:, None]  # 0 or 1 / (1 - rate), on average the plain head
    assert {round(float(x), 4) for x in thinned.unique()} == {0.0, round(1 / 0.9, 4)}
    np.testing.assert_allclose(thinned.mean(dim=1), 1.0, atol=5 * (0.1 / 0.9 / 4000) ** 0.5)


def test_the_estimator_is_reproducible_and_leaves_broken_features_out() -> None:
    pairs = planted_pairs(100)
    vectors = pairs.vectors.copy()
    vectors[pairs.rows[2, 2]] = np.inf
    broken = replace(pairs, vectors=vectors)
    first, again = (PairEstimator(32, QUICK, seed=1).fit(broken).uncertainty(broken).passes for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.isnan(first[:, 2]).all()
    assert np.isfinite(np.delete(first, 2, axis=1)).all()
    with pytest.raises(DataError, match="labeled pairs"):
        PairEstimator(32, QUICK).fit(pairs.take(np.arange(20)))
    with pytest.raises(ConfigError, match="all passes are the same"):
        EstimatorConfig(dropout=0.0)


IDS = ("a", "b", "c", "d", "e", "f")
PASSES = Uncertainty(np.array([[0.9, 0.6, 0.3, 0.99, 0.7, 0.9], [0.8, 0.6, 0.4, 0.2, 0.7, 1.0]]))
REWARD_MARGIN = np.array([1.0, 5.0, 9.0, 2.0, 3.0, np.nan])


def chosen(**config: object) -> list[str]:
    found = select_certain(IDS, PASSES, margin=REWARD_MARGIN, config=UpoConfig(**config))  # type: ignore[arg-type]
    return [one for one, keep in zip(IDS, found.keep, strict=True) if keep]


def test_each_selector_keeps_its_own_half() -> None:
    # c is voted down, f has no margin; a, b, d, e remain: mean p .85 .6 .595 .7; BALD a small, b 0, d large, e 0
    assert chosen(selector="mean_p") == ["a", "e"]
    assert chosen(selector="bald") == ["b", "e"]
    assert chosen(selector="margin") == ["b", "e"]
    assert chosen(selector="margin", agreement=False, keep_share=0.4) == ["b", "c"]
    assert len(chosen(selector="drawn")) == 2


def test_reasons_soft_labels_and_evidence() -> None:
    found = select_certain(IDS, PASSES, margin=REWARD_MARGIN)
    assert found.reason[2] == "the estimator's majority contradicts the order"
    assert found.reason[5] == "margin or uncertainty missing"
    assert found.reason[1] == "not among the 50% most probable"
    assert found.soft_label is not None
    np.testing.assert_allclose(found.soft_label, [0.85, 0.6, 0.5, 0.595, 0.7, 0.95])
    assert found.evidence["passes"].shape == (6, 2)
    assert (found.facts["disagree"], found.facts["unscored"], found.facts["selected"]) == (1, 1, 2)


def test_alpha_never_reverses_a_label() -> None:
    np.testing.assert_allclose(smoothing(PASSES, "mean_p")[:3], [0.15, 0.4, 0.5])
    certain = Uncertainty(np.array([[0.0, 0.9], [1.0, 0.9]]))
    np.testing.assert_allclose(smoothing(certain, "bald"), [0.5, 0.0], atol=1e-6)
    assert smoothing(PASSES, "none").tolist() == [0.0] * 6
    with pytest.raises(ConfigError, match="mean_p, bald or none"):
        smoothing(PASSES, "printed")  # type: ignore[arg-type]


def test_mu_is_an_exponent() -> None:
    np.testing.assert_allclose(sampling_weights([0.0, 0.5], 2.0), [1.0, 0.25])


def test_drawing_follows_the_weights_and_copes_with_too_few() -> None:
    counts = sum(draw([3.0, 1.0, 0.0], 1, seed=seed).astype(int) for seed in range(400))
    assert counts[0] / 400 == pytest.approx(0.75, abs=0.07)
    assert counts[2] == 0
    assert draw([3.0, 0.0, np.nan, 1.0], 3).tolist() == [True, False, False, True]
    assert not draw([0.0, 0.0], 1).any()


def test_the_mix_has_its_shares_and_one_pair_a_prompt() -> None:
    n = 100
    generator = np.random.default_rng(0)
    passes = Uncertainty(np.clip(0.7 + 0.2 * generator.standard_normal((10, n)), 0, 1))
    margin = np.where(np.arange(n) == 3, np.nan, generator.standard_normal(n))
    selected = select_certain([f"{i:03d}" for i in range(n)], passes, margin=margin)
    prompts = [f"prompt {i // 2}" for i in range(n)]
    found = mix(selected, prompts=prompts)
    new = np.flatnonzero(found.keep)
    assert len(new) == len({prompts[i] for i in new}) == found.facts["trained_on"]
    assert 3 not in new
    assert (found.facts["hard"], found.facts["widest"]) == (round(0.2 * selected.keep.sum()), 15)
    assert [bool(reason) for reason in found.reason] == (~found.keep).tolist()
    easy = mix(selected, prompts=list(range(n)), config=MixConfig(largest_margin=0, hard=0))
    np.testing.assert_array_equal(easy.keep, selected.keep)
    np.testing.assert_array_equal(found.keep, mix(selected, prompts=prompts).keep)


def test_no_pair_that_the_estimator_contradicts_trains() -> None:
    """1,000 candidates of 250 prompts: one in five is contradicted, and those have the largest margins and B."""
    n = 1000
    contradicted = np.arange(n) % 5 == 0
    side = np.where(contradicted, 0.2, 0.8)
    spread = np.where(contradicted, 0.19, np.linspace(0, 0.15, n))
    passes = Uncertainty(np.stack([side + spread, side - spread] * 5))
    margin = np.random.default_rng(0).random(n) + 3 * contradicted
    ids, prompts = [f"{i:04d}" for i in range(n)], np.arange(n) // 4
    everything = MixConfig(largest_margin=1, hard=1)
    selected = select_certain(ids, passes, margin=margin, config=UpoConfig(selector="mean_p"))
    new = mix(selected, prompts=list(range(n)), config=everything).keep
    assert selected.facts["disagree"] == 200
    assert new.sum() > selected.keep.sum() == 400  # some of the hard and of the widest pairs are no easy ones
    assert not contradicted[new].any()
    assert not contradicted[mix(selected, prompts=prompts, config=everything).keep].any()
    trusting = select_certain(ids, passes, margin=margin, config=UpoConfig(agreement=False))
    assert contradicted[mix(trusting, prompts=prompts, config=everything).keep].any()


def test_the_widest_pair_of_each_prompt_is_one_of_its_best_against_its_worst() -> None:
    margin, prompts = [1.0, np.nan, 3.0, 2.0, 2.0, np.nan], ["p", "p", "q", "q", "p", "r"]
    assert widest(margin, prompts).tolist() == [2, 4]
    passes = Uncertainty(np.tile([[0.9, 0.9, 0.4, 0.9, 0.9, 0.9]], (2, 1)))
    selected = select_certain(list("abcdef"), passes, margin=margin, config=UpoConfig(keep_share=0.01))
    assert not selected.keep.any()
    new = mix(selected, prompts=prompts, config=MixConfig(largest_margin=1, hard=0)).keep
    assert np.flatnonzero(new).tolist() == [4]  # the contradicted widest pair of q is not replaced by its second


def test_certain_pairs_are_cleaner_than_all() -> None:
    """400 labeled pairs train the estimator; the rest carry flipped labels that it has not seen."""
    estimator = PairEstimator(32, QUICK).fit(planted_pairs(400))
    wrong = flips(400, 0.3, seed=1)
    pairs = planted_pairs(400, seed=9).flipped(wrong)
    found = estimator.uncertainty(pairs)
    margin = found.mean - 0.5
    for selector in ("mean_p", "bald"):
        verdicts = select_certain(pairs.ids, found, margin=margin, config=UpoConfig(selector=selector))  # type: ignore[arg-type]
        assert wrong[verdicts.keep].mean() < 0.2
    assert isinstance(verdicts, LabelWeights)
