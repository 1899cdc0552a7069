"""The selection rule of peer review: hand-derived pools, ties, NaN, ratios, what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmkit.errors import ConfigError
from rmkit.reliability.peer_review import (
    ReviewConfig,
    Selection,
    curriculum_order,
    everything,
    jaccard,
    keep_in_batch,
    keep_ratio,
    ranks,
    reviewing,
    select,
    tie_order,
)
from rmkit.reliability.review_audit import AuditLog
from rmkit.reliability.separation import auc, kept_precision

ORDER = np.arange(5)
MARGIN = np.array([[5.0, 4, 3, 2, 1], [1.0, 5, 2, 4, 3]])


def test_the_keep_ratio_falls_from_one_to_the_prior_over_the_ramp() -> None:
    config = ReviewConfig(warmup_epochs=1, ramp_epochs=2)
    assert [keep_ratio(t, 0.4, config) for t in range(4)] == pytest.approx([1, 0.8, 0.6, 0.6])
    longer = ReviewConfig(warmup_epochs=2, ramp_epochs=4)
    assert [keep_ratio(t, 0.2, longer) for t in range(7)] == pytest.approx([1, 1, 0.95, 0.9, 0.85, 0.8, 0.8])


def test_a_fractional_epoch_within_the_warm_up_keeps_everything() -> None:
    assert keep_ratio(0.5, 0.4, ReviewConfig()) == 1


@pytest.mark.parametrize("noise", [-0.1, 0.5, 0.9, float("nan")])
def test_a_prior_outside_zero_to_one_half_is_refused(noise: float) -> None:
    with pytest.raises(ConfigError, match=r"\[0, 0.5\)"):
        keep_ratio(3, noise, ReviewConfig())


def test_each_model_learns_from_what_the_other_rates_highest() -> None:
    chosen = select(MARGIN, 0.4, tie_order=ORDER, config=ReviewConfig())
    assert chosen.selected_by == ("B", "A")
    assert np.flatnonzero(chosen.kept[0]).tolist() == [1, 3]  # the two largest of B
    assert np.flatnonzero(chosen.kept[1]).tolist() == [0, 1]  # the two largest of A
    assert chosen.rank[0].tolist() == [4, 0, 3, 1, 2]


def test_self_and_mean_selectors() -> None:
    own = select(MARGIN, 0.4, tie_order=ORDER, config=ReviewConfig(selector="self"))
    assert own.selected_by == ("A", "B")
    assert np.flatnonzero(own.kept[0]).tolist() == [0, 1]
    both = select(MARGIN, 0.4, tie_order=ORDER, config=ReviewConfig(selector="mean"))
    assert both.selected_by == ("mean", "mean")
    assert np.flatnonzero(both.kept[0]).tolist() == np.flatnonzero(both.kept[1]).tolist() == [0, 1]  # means 3, 4.5


def test_ties_go_by_id_and_missing_margins_are_never_kept() -> None:
    order = tie_order(["d", "b", "c", "a"])
    assert order.tolist() == [3, 1, 2, 0]
    assert ranks([1.0, 1.0, np.nan, 1.0], order).tolist() == [2, 1, -1, 0]
    margin = np.array([[1.0, np.nan, 2, 3]] * 2)
    chosen = select(margin, 1.0, tie_order=order, config=ReviewConfig())
    assert chosen.kept[0].tolist() == [True, False, True, True]


def test_a_batch_keeps_at_least_one_and_leaves_padding_out() -> None:
    deciding = np.array([[3.0, 1, 2, np.nan], [0.0, -5, np.nan, np.nan]])
    kept, rank = keep_in_batch(deciding, 0.6, tie_order_KB=np.tile(np.arange(4), (2, 1)))
    assert kept.tolist() == [[True, False, True, False], [True, False, False, False]]  # round(.6 * 3) = 2, (.6 * 2) = 1
    assert rank[0].tolist() == [0, 2, 1, -1]
    least, _ = keep_in_batch([[1.0, 2.0]], 0.1, tie_order_KB=np.array([[0, 1]]))
    assert least.tolist() == [[False, True]]


@given(
    margin=st.lists(st.floats(-5, 5), min_size=3, max_size=40),
    ratio=st.floats(0.5, 1),
    shift=st.floats(-3, 3),
)
def test_a_pool_has_its_size_and_survives_shifts_of_the_margins(
    margin: list[float], ratio: float, shift: float
) -> None:
    order = np.arange(len(margin))
    both = np.round(np.array([margin, margin[::-1]]), 3)
    chosen = select(both, ratio, tie_order=order, config=ReviewConfig())
    assert chosen.kept.sum(axis=1).tolist() == [max(1, round(ratio * len(margin)))] * 2
    moved = select(both + round(shift), ratio, tie_order=order, config=ReviewConfig())
    np.testing.assert_array_equal(chosen.kept, moved.kept)


def test_sorting_all_pairs_with_selection_per_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="late batches"):
        ReviewConfig(curriculum=True, scope="batch")
    assert ReviewConfig(curriculum=True).scope == "global"


def test_the_curriculum_goes_from_easy_to_hard_and_shuffles_within_windows() -> None:
    mean = np.arange(100, dtype=float)
    pool = np.arange(0, 100, 2)
    walked = curriculum_order(mean, pool, window=10, generator=np.random.default_rng(0))
    assert sorted(walked) == sorted(pool)
    easiest = set(pool[-10:])
    assert set(walked[:10]) == easiest
    assert walked[:10].tolist() != sorted(easiest, reverse=True)


def test_jaccard_of_pools() -> None:
    assert jaccard(np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)) == pytest.approx(1 / 3)
    assert np.isnan(jaccard(np.zeros((2, 3), dtype=bool)))


def test_unknown_selector() -> None:
    with pytest.raises(ConfigError, match="peer, self or mean"):
        reviewing(MARGIN, "other")  # type: ignore[arg-type]


def test_auc_is_the_share_of_right_wrong_pairs_in_order() -> None:
    margin, clean = [3.0, 1.0, 2.0, 1.0, np.nan], [True, True, False, False, True]
    # right 3, 1 against wrong 2, 1: 3>2, 3>1, 1<2, 1=1 -> (2 + 0 + .5) / 4
    assert auc(margin, clean) == pytest.approx(2.5 / 4)
    assert np.isnan(auc([1.0, 2.0], [True, True]))


def test_auc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(3)
    clean, margin = generator.random(300) < 0.7, generator.integers(-4, 5, 300)
    assert auc(margin, clean) == pytest.approx(roc_auc_score(clean, margin))


def test_precision_and_recall_of_the_kept() -> None:
    kept, clean = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert kept_precision(kept, clean) == 0.5
    assert np.isnan(kept_precision(np.zeros(4, dtype=bool), clean))


def test_the_audit_counts_epochs_and_tells_the_truth() -> None:
    log = AuditLog("peer", ["a", "b", "c", "d"], truth=np.array([True, True, False, True]))
    first = np.array([[4.0, 3, 2, 1], [4, 3, 1, 2]], dtype=np.float32)
    log.add(first, everything(np.ones(4, dtype=bool)), keep_ratio=1.0)
    log.add(first, select(first, 0.5, tie_order=np.arange(4), config=ReviewConfig()), keep_ratio=0.5)
    audit = log.audit()
    assert audit.times_kept[-1].tolist() == [[2, 2, 1, 1], [2, 2, 1, 1]]
    assert audit.loss[0, 0, 0] == pytest.approx(np.log1p(np.exp(-4)))
    second = audit.epochs[1]
    assert (second.kept, second.jaccard, second.kept_precision) == ((2, 2), 1.0, (1.0, 1.0))
    assert second.auc == pytest.approx((2 / 3, 1.0))
    rows = audit.table().to_pylist()
    assert len(rows) == 2 * 2 * 4
    assert rows[8] == {
        "id": "a",
        "method": "peer",
        "epoch": 2,
        "model": "A",
        "margin": 4.0,
        "loss": pytest.approx(np.log1p(np.exp(-4))),
        "kept": True,
        "selected_by": "B",
        "rank": 0,
        "times_kept": 2,
    }
    assert rows[0]["selected_by"] == "all"
    assert rows[0]["rank"] is None


def test_models_that_agree_or_learn_against_their_labels_are_told(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog("peer", [str(i) for i in range(100)])
    margin = np.tile(-np.arange(1, 101, dtype=np.float32), (2, 1))
    with caplog.at_level(logging.WARNING):
        facts = log.add(margin, select(margin, 0.6, tie_order=np.arange(100), config=ReviewConfig()), keep_ratio=0.6)
    assert any("learns against its labels" in one for one in facts.warnings)
    assert any("Jaccard 1.000" in one for one in facts.warnings)
    assert "one of them would do" in caplog.text
    mean = select(margin, 0.6, tie_order=np.arange(100), config=ReviewConfig(selector="mean"))
    assert not any("Jaccard" in one for one in log.add(margin, mean, keep_ratio=0.6).warnings)


def test_missing_margins_are_counted() -> None:
    log = AuditLog("peer", ["a", "b", "c"])
    margin = np.array([[1.0, np.nan, 2], [1, 2, 3]], dtype=np.float32)
    selection = Selection(np.ones((2, 3), dtype=bool), np.zeros((2, 3), dtype=np.int64), ("all", "all"))
    assert log.add(margin, selection, keep_ratio=1.0).nan_margins == 1
