"""Scores by hand, propensities by simulation, and a replay where one strategy must win."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labeling_ui.desk.display_order import drawing, shown_order
from labeling_ui.learning.simulate import (
    Labeled,
    simulate,
    summary,
    verdict,
)
from labeling_ui.learning.strategies import (
    Pool,
    SimulationConfig,
    coverage,
    scores,
    weights,
)
from rmkit.errors import ConfigError, UsageError

POOL = Pool(
    p=np.array([[0.5, 0.9, 0.1, 0.99], [0.5, 0.1, 0.1, 0.99]]),
    features=np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]]),
    labeled=np.array([False, False, False, True]),
    label=np.array([np.nan, np.nan, np.nan, 0.0]),
)


def test_uncertainty_is_highest_where_the_mean_is_a_half() -> None:
    told = scores("uncertainty", POOL, batch=1)
    assert told[0] == told[1] == pytest.approx(math.log(2))
    assert told[2] == pytest.approx(-(0.1 * math.log(0.1) + 0.9 * math.log(0.9)))


def test_disagreement_is_only_where_the_members_differ() -> None:
    """Both say a half: nothing to learn. One says 0.9, the other 0.1: ln 2 - H(0.1)."""
    told = scores("disagreement", POOL, batch=1)
    assert told[[0, 2, 3]] == pytest.approx(0, abs=1e-12)
    assert told[1] == pytest.approx(math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9))


def test_model_change_grows_with_the_features() -> None:
    assert scores("model_change", POOL, batch=1) == pytest.approx([0.5, 0.5, 2 * 0.09 * 3, 2 * 0.0099 * 2])


def test_mislabel_looks_at_labels_again() -> None:
    assert scores("mislabel", POOL, batch=1) == pytest.approx([0, 0, 0, 0.99])
    blank = Pool(POOL.p, POOL.features, POOL.labeled, np.full(4, np.nan))
    with pytest.raises(UsageError, match="this pool has none"):
        scores("mislabel", blank, batch=1)


def test_coverage_takes_what_is_far_from_everything_known_and_from_its_mirror_image() -> None:
    x = np.array([[1.0, 0.0], [-1.0, 0.001], [0.0, 1.0], [0.1, 1.0]])
    told = coverage(x, np.array([True, False, False, False]), batch=1)
    assert np.argsort(-told).tolist()[0] == 2
    assert told[1] < told[3] < told[2]


def test_the_propensity_is_the_share_of_draws() -> None:
    """Three items of weights 1, 2 and 5: how often each comes first, and second given the first."""
    draws = [drawing(np.array([1.0, 2.0, 5.0]), seed=seed) for seed in range(4000)]
    mixed = 0.9 * np.array([1, 2, 5]) / 8 + 0.1 / 3
    first = np.bincount([order[0] for order, _ in draws], minlength=3) / 4000
    assert first == pytest.approx(mixed, abs=3 * 0.5 / math.sqrt(4000))
    for order, propensity in draws[:50]:
        assert propensity[0] == pytest.approx(mixed[order[0]])
        assert propensity[1] == pytest.approx(mixed[order[1]] / (1 - mixed[order[0]]))
        assert propensity[2] == pytest.approx(1)


@pytest.mark.parametrize("bad", [[1.0, -1.0], [0.0, 0.0], [np.nan, 1.0]])
def test_weights_that_are_none_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite, not negative"):
        drawing(np.array(bad), seed=0)


def test_weights_follow_ranks_only() -> None:
    assert weights(np.array([5.0, 1e9, -3.0])).tolist() == weights(np.array([2.0, 3.0, 1.0])).tolist()


def test_each_response_stands_once_at_each_place_over_n_turns() -> None:
    for unit in ("a", "b", "c"):
        orders = [shown_order(0, unit, n=3, turn=turn) for turn in range(3)]
        assert all(sorted(places) == [0, 1, 2] for places in zip(*orders, strict=True))
    firsts = [shown_order(0, f"u{n}", n=2, turn=0)[0] for n in range(400)]
    assert 160 < sum(firsts) < 240


def _planted(n: int, *, rare: float) -> Labeled:
    """Most pairs tell nothing (tiny features); a rare part tells the direction."""
    rng = np.random.default_rng(7)
    teller = rng.random(n) < rare
    x = rng.normal(size=(n, 12)) * np.where(teller, 1.0, 0.02)[:, None]
    margin = x @ rng.normal(size=12)
    return Labeled(x, (margin > 0).astype(float), np.arange(n))


@pytest.mark.slow
def test_a_replay_finds_the_strategy_that_the_data_rewards() -> None:
    settings = SimulationConfig(start=20, batch=20, rounds=4, members=3, seeds=4, strategies=("random", "model_change"))
    data = _planted(800, rare=0.15)
    found = simulate(data, settings)
    assert found["model_change"].shape == (4, 5)
    assert np.array_equal(found["model_change"], simulate(data, settings)["model_change"])  # seeded
    rows = {row["strategy"]: row for row in summary(found, settings)}
    assert rows["model_change"]["gain_interval"][0] > 0
    assert rows["model_change"]["share_of_random"] <= 0.7
    assert verdict(list(rows.values())).startswith("model_change: +")


def test_where_nothing_helps_the_verdict_says_so() -> None:
    rng = np.random.default_rng(1)
    noise = Labeled(rng.normal(size=(400, 4)), (rng.random(400) < 0.5).astype(float), np.arange(400))
    settings = SimulationConfig(start=20, batch=20, rounds=3, members=3, seeds=4)
    assert "label at random" in verdict(summary(simulate(noise, settings), settings))


def test_a_replay_needs_enough_pairs_and_something_to_compare_with() -> None:
    with pytest.raises(ConfigError, match="fewer than start"):
        simulate(_planted(60, rare=0.5), SimulationConfig(start=100, seeds=1))
    with pytest.raises(ConfigError, match="must include random"):
        SimulationConfig(strategies=("coverage",))
