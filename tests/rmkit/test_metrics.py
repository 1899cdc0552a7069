"""Hand-derived numbers, agreement with scikit-learn and scipy, properties, and a simulation of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from rmkit.metrics import (
    calibration,
    clustered_interval,
    fit_temperature,
    length_bias,
    log_loss,
    margin_summary,
    pair_accuracy,
    pair_credit,
    paired_difference,
)
from rmkit.metrics.bootstrap import FEW_CLUSTERS
from rmkit.metrics.calibration import sigmoid

NAN = math.nan

# right, wrong, right (label says second), tie, unscored, label is a tie, soft label right
MARGIN = [1.0, -2.0, -0.5, 0.0, NAN, 3.0, 0.1]
LABEL = [1.0, 1.0, 0.0, 1.0, 1.0, 0.5, 0.6]


def test_accuracy_counts_every_kind_of_item_apart() -> None:
    found = pair_accuracy(MARGIN, LABEL)
    assert (found.numerator, found.denominator, found.n) == (3, 5, 5)
    assert found.value == pytest.approx(3 / 5)
    assert (found.ties, found.unscored, found.undecided) == (1, 1, 1)
    assert found.tie_policy == "zero"
    assert found.interval is None


def test_a_tie_is_worth_half_a_win_only_when_asked() -> None:
    assert pair_accuracy(MARGIN, LABEL, ties="half").value == pytest.approx(3.5 / 5)


def test_tie_width_turns_small_margins_into_ties() -> None:
    found = pair_accuracy(MARGIN, LABEL, tie_width=0.5)
    assert (found.ties, found.numerator) == (3, 1)


def test_weights_change_the_value_not_the_counts() -> None:
    found = pair_accuracy(MARGIN, LABEL, weight=[2, 1, 0.5, 0.5, 9, 9, 1])
    assert (found.numerator, found.denominator, found.n) == (3.5, 5.0, 5)


def test_nothing_to_count_is_nan_not_zero() -> None:
    found = pair_accuracy([NAN, 1.0], [1.0, 0.5], clusters=[1, 2])
    assert math.isnan(found.value)
    assert (found.denominator, found.interval) == (0, None)


def test_credit_is_nan_where_there_is_nothing_to_win() -> None:
    assert np.array_equal(pair_credit(MARGIN, LABEL), [1, 0, 1, 0, NAN, NAN, 1], equal_nan=True)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=1, max_size=30))
def test_swapping_the_responses_changes_no_accuracy(items: list[tuple[float, float]]) -> None:
    margin, p = np.array(items).T
    p = np.round(p, 3)  # 1 - p is then exact enough that a tie stays one
    one, swapped = pair_accuracy(margin, p), pair_accuracy(-margin, 1 - p)
    assert (one.numerator, one.denominator, one.ties) == (swapped.numerator, swapped.denominator, swapped.ties)


def test_accuracy_agrees_with_sklearn_on_untied_items() -> None:
    generator = np.random.default_rng(0)
    margin, p, weight = generator.normal(size=300), generator.integers(0, 2, 300), generator.uniform(0.1, 2, 300)
    expected = sklearn_metrics.accuracy_score(p, margin > 0, sample_weight=weight)
    assert pair_accuracy(margin, p, weight=weight).value == pytest.approx(expected)


def test_bootstrap_of_two_clusters_is_the_exact_binomial() -> None:
    """Clusters of credits (1, 1) and (0, 0, 0, 0): resampled ratios are 0, 1/3 and 1 with weights 1/4, 1/2, 1/4."""
    credit, clusters = [1, 1, 0, 0, 0, 0], [7, 7, 3, 3, 3, 3]
    wide = clustered_interval(credit, clusters, level=0.95)
    narrow = clustered_interval(credit, clusters, level=0.4)
    assert wide is not None
    assert narrow is not None
    assert (wide.low, wide.high, wide.n_clusters) == (0.0, 1.0, 2)
    assert narrow.low == narrow.high == pytest.approx(1 / 3)


def test_one_cluster_has_no_interval() -> None:
    assert clustered_interval([1, 0, 1], [5, 5, 5]) is None


def test_interval_agrees_with_scipy_when_items_are_independent() -> None:
    credit = (np.random.default_rng(1).random(400) < 0.7).astype(float)
    ours = clustered_interval(credit, np.arange(400), resamples=4000)
    theirs = stats.bootstrap((credit,), np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
    assert ours is not None
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)


def test_copies_of_an_item_narrow_the_naive_interval_but_not_the_clustered_one() -> None:
    credit = (np.random.default_rng(2).random(100) < 0.6).astype(float)
    once = clustered_interval(credit, np.arange(100))
    copied = clustered_interval(np.repeat(credit, 9), np.repeat(np.arange(100), 9))
    naive = clustered_interval(np.repeat(credit, 9), np.arange(900))
    assert once is not None
    assert copied is not None
    assert naive is not None
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_the_interval_is_reproducible_and_chunking_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    credit = (np.random.default_rng(3).random(50) < 0.5).astype(float)
    one = clustered_interval(credit, np.arange(50), seed=4)
    assert one == clustered_interval(credit, np.arange(50), seed=4)
    assert one != clustered_interval(credit, np.arange(50), seed=5)
    monkeypatch.setattr("rmkit.metrics.bootstrap._CELLS", 500)  # ten resamples at a time
    assert one == clustered_interval(credit, np.arange(50), seed=4)


def test_paired_difference_by_hand() -> None:
    found = paired_difference([1, 1, 0, NAN], [0, 1, 1, 1], [1, 2, 3, 4], weight=[3, 1, 1, 1])
    assert found.value == pytest.approx((3 - 1) / 5)
    assert found.n == 3
    same = paired_difference([1, 0, 1], [1, 0, 1], [1, 2, 3])
    assert same.interval is not None
    assert (same.value, same.interval.low, same.interval.high) == (0, 0, 0)


def test_paired_difference_without_common_items() -> None:
    found = paired_difference([1, NAN], [NAN, 1], [1, 2])
    assert math.isnan(found.value)
    assert (found.n, found.interval) == (0, None)


def test_pairing_narrows_the_interval_of_correlated_models() -> None:
    generator = np.random.default_rng(5)
    easy = generator.random(400) < 0.7
    first, second = (np.where(generator.random(400) < 0.05, ~easy, easy).astype(float) for _ in range(2))
    paired = paired_difference(first, second, np.arange(400)).interval
    single = clustered_interval(first, np.arange(400))
    assert paired is not None
    assert single is not None
    assert paired.high - paired.low < single.high - single.low


def _covered(seed: int, families: int = 120) -> bool:
    """One data set of families of 1 to 6 pairs whose accuracies vary around 0.65; does the interval hold 0.65?"""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 7, families)
    clusters = np.repeat(np.arange(families), sizes)
    credit = generator.random(len(clusters)) < generator.beta(6.5, 3.5, families)[clusters]
    found = clustered_interval(credit.astype(float), clusters, resamples=600, seed=seed)
    assert found is not None
    return found.low <= 0.65 <= found.high


def test_coverage_of_the_95_percent_interval_roughly() -> None:
    covered = np.mean([_covered(seed) for seed in range(200)])
    assert 0.90 <= covered <= 0.99  # four standard errors of 200 trials around 0.94


@pytest.mark.slow
def test_coverage_of_the_95_percent_interval() -> None:
    covered = np.mean([_covered(seed) for seed in range(3000)])
    assert 0.93 <= covered <= 0.97


@pytest.mark.slow
def test_intervals_of_few_clusters_are_too_narrow_and_of_fifty_nearly_right() -> None:
    coverage = {n: np.mean([_covered(seed, n) for seed in range(2000)]) for n in (10, 20, FEW_CLUSTERS)}
    assert coverage[10] < 0.90 < coverage[20] < 0.93 < coverage[FEW_CLUSTERS]


def test_calibration_by_hand() -> None:
    found = calibration([0.05, 0.15, 0.95, 1.0, NAN], [0.0, 1.0, 1.0, 0.5, 1.0], bins=10)
    assert found.n == 4
    assert found.brier == pytest.approx((0.05**2 + 0.85**2 + 0.05**2 + 0.5**2) / 4)
    assert found.ece == pytest.approx((0.05 + 0.85 + 2 * (0.975 - 0.75)) / 4)
    assert [one.n for one in found.bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (found.bins[9].mean_predicted, found.bins[9].mean_label) == pytest.approx((0.975, 0.75))
    assert math.isnan(found.bins[4].mean_label)
    assert found.label_entropy == pytest.approx(math.log(2) / 4)


def test_weighted_calibration_equals_repeated_items() -> None:
    generator = np.random.default_rng(6)
    q, p, weight = generator.random(40), generator.random(40), generator.integers(1, 4, 40)
    weighted = calibration(q, p, weight=weight)
    repeated = calibration(np.repeat(q, weight), np.repeat(p, weight))
    for name in ("ece", "brier", "log_loss", "label_entropy"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name))


def test_losses_agree_with_sklearn_on_hard_labels() -> None:
    generator = np.random.default_rng(7)
    q, p = generator.uniform(0.01, 0.99, 200), generator.integers(0, 2, 200)
    found = calibration(q, p)
    assert found.brier == pytest.approx(sklearn_metrics.brier_score_loss(p, q))
    assert found.log_loss == pytest.approx(sklearn_metrics.log_loss(p, q))
    assert found.label_entropy == 0


@given(st.floats(0, 1), st.floats(0, 1))
def test_no_prediction_beats_the_label_itself(q: float, p: float) -> None:
    assert log_loss([q], [p]) >= log_loss([p], [p]) - 1e-9


def test_no_scored_item_gives_nan() -> None:
    found = calibration([NAN], [1.0])
    assert (found.n, found.bins) == (0, ())
    assert math.isnan(found.ece)
    assert math.isnan(log_loss([NAN], [1.0]))


def test_temperature_undoes_a_known_scaling() -> None:
    margin = np.linspace(-4, 4, 81)
    p = sigmoid(margin / 2.5)
    assert fit_temperature(margin, p) == pytest.approx(2.5, rel=1e-3)
    assert fit_temperature([*margin, NAN], [*p, 1.0]) == pytest.approx(2.5, rel=1e-3)


def test_temperature_of_nothing_is_one() -> None:
    assert fit_temperature([0.0, NAN], [1.0, 1.0]) == 1.0


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]


def test_margin_summary_by_hand() -> None:
    found = margin_summary(MARGIN, LABEL, bins=4)  # toward the label: 1, -2, .5, 0, .1
    assert found.n == 5
    assert found.mean == pytest.approx(-0.4 / 5)
    assert found.median == pytest.approx(0.1)
    assert found.share_positive == pytest.approx(3 / 5)
    assert sum(found.counts) == 5
    assert (found.edges[0], found.edges[-1], len(found.edges)) == (-2.0, 1.0, 5)


def test_margin_summary_of_nothing() -> None:
    assert margin_summary([NAN], [1.0]).counts == ()


def test_length_bias_of_a_length_rule() -> None:
    first, second, label = [100, 50, 100, 100], [50, 100, 95, 20], [1.0, 1.0, 1.0, 0.0]
    found = length_bias(np.subtract(first, second), label, length_first=first, length_second=second)
    assert found.accuracy["longer"].value == 1
    assert found.accuracy["shorter"].value == 0
    assert (found.accuracy["shorter"].n, found.accuracy["longer"].n, found.accuracy["equal"].n) == (2, 1, 1)
    assert found.pearson == pytest.approx(1)
    assert found.spearman == pytest.approx(1)
    assert found.longer_preferred == pytest.approx(2 / 4)


def test_correlations_agree_with_scipy_including_ties() -> None:
    generator = np.random.default_rng(8)
    margin = np.round(generator.normal(size=200), 1)
    first, second = generator.integers(1, 30, 200), generator.integers(1, 30, 200)
    margin[3] = NAN
    found = length_bias(margin, np.ones(200), length_first=first, length_second=second)
    known = ~np.isnan(margin)
    assert found.pearson == pytest.approx(stats.pearsonr(margin[known], (first - second)[known])[0])
    assert found.spearman == pytest.approx(stats.spearmanr(margin[known], (first - second)[known])[0])


def test_correlation_with_a_constant_is_unknown() -> None:
    found = length_bias([1.0, 2.0], [1.0, 0.0], length_first=[5, 5], length_second=[5, 5])
    assert math.isnan(found.pearson)
    assert math.isnan(found.longer_preferred)
    assert found.accuracy["equal"].n == 2
