"""How many labels are wrong, filters by cross-fitting and cleanlab, ensembles, annotators, and the shared checks."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from rmkit.errors import ConfigError, DataError, MissingExtraError
from rmkit.heads.stacked_training import HeadConfig
from rmkit.reliability.annotators import annotator_reliability
from rmkit.reliability.confident_learning import confident_filter
from rmkit.reliability.cross_fit import cross_fit_filter, cross_fitted_margins, fold_of
from rmkit.reliability.ensemble import combine, reward_scale
from rmkit.reliability.label_weights import LabelWeights, check_both_classes, reasons
from rmkit.reliability.noise_prior import from_gold, from_margins, stated
from tests.rmkit.reliability.reliability_data import flips, planted_pairs

HEAD = HeadConfig(hidden=32, batch_pairs=40, epochs=5, lr=3e-3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_gold_items_give_the_exact_binomial_interval() -> None:
    found = from_gold([False] * 8 + [True] * 32)
    assert (found.value, found.source, found.n) == (0.2, "gold", 40)
    assert found.low is not None
    assert found.high is not None
    assert binom.sf(7, 40, found.low) == pytest.approx(0.025)  # P(8 or more wrong | low)
    assert binom.cdf(8, 40, found.high) == pytest.approx(0.025)


def test_a_cross_fitted_prior_is_corrected_for_the_models_own_errors() -> None:
    margin = np.where(np.arange(200) < 68, -1.0, 1.0)
    margin[199] = np.nan
    plain = from_margins(margin)
    assert plain.value == pytest.approx(68 / 199)
    assert plain.n == 199
    corrected = from_margins(margin, model_error=0.2)
    assert corrected.value == pytest.approx((68 / 199 - 0.2) / 0.6)
    assert corrected.low is not None
    assert corrected.high is not None
    assert corrected.low < corrected.value < corrected.high


def test_a_prior_with_the_true_model_error_finds_the_rate() -> None:
    generator = np.random.default_rng(0)
    right, flipped = generator.random(20_000) > 0.15, generator.random(20_000) < 0.3
    margin = np.where(right ^ flipped, 1.0, -1.0)
    assert from_margins(margin, model_error=0.15).value == pytest.approx(0.3, abs=0.02)
    assert from_margins(margin).value > 0.3  # the upper estimate


def test_priors_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"\[0, 0.5\)"):
        stated(0.5)
    with pytest.raises(DataError, match="gold items"):
        from_gold([True] * 19)
    with pytest.raises(DataError, match="nothing can be"):
        from_gold([False] * 30 + [True] * 10)
    with pytest.raises(DataError, match="usable pairs"):
        from_margins([1.0] * 49)
    with pytest.raises(DataError, match="chosen and rejected are exchanged"):
        from_margins([-1.0] * 90 + [1.0] * 10)
    assert from_margins([-1.0] * 51 + [1.0] * 49).value == 0.45  # within the error of one half: capped
    with pytest.raises(DataError, match="one prompt"):
        from_margins([1.0] * 60, groups=["same"] * 60)
    assert str(stated(0.2)) == "0.200 given"


def test_cross_fitted_margins_come_from_heads_that_did_not_see_the_pair() -> None:
    pairs = planted_pairs(200)
    shuffled = pairs.flipped(flips(200, 0.5))  # nothing to learn: a head that saw a pair would agree with its label
    long = replace(HEAD, epochs=30)
    assert (cross_fitted_margins(shuffled, head=long) > 0).mean() == pytest.approx(0.5, abs=0.15)
    assert (cross_fitted_margins(pairs, head=HEAD) > 0).mean() > 0.75


def test_a_group_shares_its_fold() -> None:
    groups = [i // 4 for i in range(200)]
    fold = fold_of(groups, folds=5)
    assert np.bincount(fold).tolist() == [40] * 5
    assert all(len(set(fold[4 * g : 4 * g + 4])) == 1 for g in range(50))
    np.testing.assert_array_equal(fold, fold_of(groups, folds=5))
    with pytest.raises(DataError, match="cannot fill 5 folds"):
        fold_of(["a", "b"], folds=5)
    with pytest.raises(ConfigError, match="folds"):
        fold_of(groups, folds=1)


def test_the_filter_drops_flipped_pairs_and_counts_broken_ones() -> None:
    wrong = flips(400, 0.2)
    pairs = planted_pairs(400).flipped(wrong)
    vectors = pairs.vectors.copy()
    vectors[pairs.rows[7, 0]] = np.nan
    found = cross_fit_filter(replace(pairs, vectors=vectors), head=HEAD)
    assert wrong[found.keep].mean() < 0.12
    assert found.reason[7] == "features are not finite"
    assert found.facts["unusable"] == 1
    share = cross_fit_filter(pairs, head=HEAD, keep_share=0.5)
    assert share.keep.sum() == 200
    assert set(share.reason) == {"", "its cross-fitted margin is not among the largest 50%"}
    with pytest.raises(ConfigError, match="keep_share"):
        cross_fit_filter(pairs, keep_share=0.0)


def test_confident_learning_finds_flips_through_cleanlab() -> None:
    pytest.importorskip("cleanlab")
    generator = np.random.default_rng(0)
    first, wrong = generator.random(300) < 0.5, flips(300, 0.2)
    margin = np.where(wrong, -1.0, 1.0) * np.abs(generator.normal(2, 0.7, 300))
    margin[5] = np.nan
    ids = [str(i) for i in range(300)]
    found = confident_filter(ids, margin, first_preferred=first)
    dropped = ~found.keep & ~np.isnan(margin)
    assert wrong[dropped].mean() > 0.9
    assert dropped.sum() > 45
    assert found.reason[5] == "no margin"
    with pytest.raises(DataError, match="one class only: all 299"):
        confident_filter(ids, margin, first_preferred=np.ones(300, dtype=bool))


def test_confident_learning_without_cleanlab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[denoise\]'"):
        confident_filter(["a"], [1.0], first_preferred=[True])


def test_combinations_by_hand() -> None:
    scale = reward_scale([[0.0, 2.0, 4.0], [10.0, 30.0, 50.0]])
    standard = scale.standardized([[4.0], [10.0]])
    unit = np.sqrt(1.5)
    np.testing.assert_allclose(standard[:, 0], [unit, -unit])
    assert combine(standard)[0] == pytest.approx(0)
    assert combine(standard, how="wco")[0] == pytest.approx(-unit)
    assert combine(standard, how="uwo", penalty=0.5)[0] == pytest.approx(-0.75)
    with pytest.raises(DataError, match="model 1 gives every response the same"):
        reward_scale([[1.0, 2], [3, 3]])
    with pytest.raises(ConfigError, match="mean, wco or uwo"):
        combine(standard, how="max")  # type: ignore[arg-type]


def test_annotators_are_held_against_the_majority_of_the_others() -> None:
    votes = [(f"p{i}", name, "a") for i in range(5) for name in ("ann", "bob")]
    votes += [(f"p{i}", "cat", "a" if i < 2 else "b") for i in range(5)]
    found = annotator_reliability(votes)
    # on p2 to p4 the others of ann (and of bob) are tied and say nothing; cat is alone against two
    assert found.comparable == {"ann": 2, "bob": 2, "cat": 5}
    assert found.value == pytest.approx({"ann": 3 / 4, "bob": 3 / 4, "cat": 3 / 7})
    assert found.weight("ann") == pytest.approx(0.5)
    assert found.weight("cat") == 0


def test_an_annotator_with_one_vote_is_refused_or_given_the_average() -> None:
    votes = [(f"p{i}", name, "a") for i in range(5) for name in ("ann", "bob", "cat")] + [("p0", "dan", "b")]
    with pytest.raises(DataError, match=r"1 annotators have fewer than 2 votes .*dan"):
        annotator_reliability(votes)
    found = annotator_reliability(votes, few="average")
    assert found.few == ("dan",)
    assert found.value["ann"] == pytest.approx(6 / 7)
    assert found.value["dan"] == pytest.approx(6 / 7)
    assert found.weight("ann") == pytest.approx(5 / 7)


def test_votes_without_names_or_company() -> None:
    with pytest.raises(DataError, match="needs a pair and an annotator"):
        annotator_reliability([("", "ann", "a")])
    with pytest.raises(DataError, match="no annotator has two votes"):
        annotator_reliability([("p1", "ann", "a"), ("p2", "bob", "b")])


def test_a_coin_weighs_nothing() -> None:
    votes = [(f"p{i}", name, "a") for i in range(40) for name in ("x", "y", "z")]
    votes += [(f"p{i}", "coin", "ab"[i % 2]) for i in range(40)]
    found = annotator_reliability(votes)
    assert found.value["coin"] == pytest.approx(0.5)
    assert found.weight("coin") == 0.0


def test_verdicts_are_consistent() -> None:
    assert reasons(3, {"first": [True, False, False], "second": [True, True, False]}) == ("first", "second", "")
    with pytest.raises(ValueError, match="2 ids"):
        LabelWeights("m", ("a", "b"), np.ones(2), ("",))
    with pytest.raises(ValueError, match="weights"):
        LabelWeights("m", ("a",), np.array([1.5]), ("",))
    found = LabelWeights("m", ("a", "b", "c"), np.array([0.0, 0.5, 1.0]), ("x", "x", ""))
    assert found.keep.tolist() == [False, True, True]
    assert found.reasons == {"x": 2}


def test_one_class_only() -> None:
    check_both_classes([0.9, 0.1, 0.5])
    check_both_classes([])
    with pytest.raises(DataError, match="all 2 decided pairs prefer the second"):
        check_both_classes([0.1, 0.2, 0.5])
