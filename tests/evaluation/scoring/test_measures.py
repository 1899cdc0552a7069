"""Intervals of cells and totals, and the declared combinations, against other implementations and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.scoring.measures import cells_of, draws, measure_all
from evaluation.suites.items import Credit
from evaluation.suites.suite import Measure, Subset, Suite
from rmkit.metrics import clustered_interval


def suite(*measures: Measure, subsets: tuple[str, ...] = ("a", "b")) -> Suite:
    return Suite(
        name="t",
        title="t",
        rule="pairs",
        form="pairs",
        subsets=tuple(Subset(name=s) for s in subsets),
        measures=measures,
    )


def clustered(rate: float, n_clusters: int, seed: int, cell: str = "a") -> list[Credit]:
    """One to four items a cluster, right together: the items of a cluster are far from independent."""
    generator = np.random.default_rng(seed)
    return [
        Credit(f"{cell}{cluster}-{i}", f"{cell}{cluster}", cell, float(right))
        for cluster in range(n_clusters)
        for right in [generator.random() < rate]
        for i in range(generator.integers(1, 5))
    ]


def test_pooled_interval_is_the_clustered_interval_of_the_metrics() -> None:
    credits = clustered(0.7, 300, seed=1)
    made = measure_all(suite(Measure("all", "pool", {"*": 1.0})), credits, resamples=4000)["all"]
    reference = clustered_interval([c.earned for c in credits], [c.cluster for c in credits], resamples=4000, seed=5)
    assert reference is not None
    assert made.low == pytest.approx(100 * reference.low, abs=0.6)
    assert made.high == pytest.approx(100 * reference.high, abs=0.6)
    assert (made.n, made.clusters) == (len(credits), 300)


def test_interval_of_a_mean_of_two_cells_has_the_width_of_the_formula() -> None:
    credits = [Credit(f"a{i}", f"a{i}", "a", float(i < 60)) for i in range(100)]
    credits += [Credit(f"b{i}", f"b{i}", "b", float(i < 120)) for i in range(400)]
    made = measure_all(suite(Measure("macro", "mean", {"a": 1, "b": 1})), credits, resamples=8000)["macro"]
    assert made.percent == pytest.approx(45)
    deviation = 100 * math.sqrt((0.6 * 0.4 / 100 + 0.3 * 0.7 / 400) / 4)
    assert made.high - made.low == pytest.approx(2 * 1.96 * deviation, rel=0.05)


@pytest.mark.slow
def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    """Clusters of unequal size that are right together: an interval over items would cover far less."""
    truth, runs = 0.7, 600
    total = suite(Measure("all", "pool", {"*": 1.0}))
    inside = narrow = 0
    for run in range(runs):
        credits = clustered(truth, 150, seed=run)
        made = measure_all(total, credits, resamples=400, seed=run)["all"]
        inside += made.low <= 100 * truth <= made.high
        half = 196 * math.sqrt(truth * (1 - truth) / len(credits))
        narrow += abs(made.percent - 100 * truth) <= half
    assert 0.93 <= inside / runs <= 0.97
    assert narrow / runs < 0.90


def test_draws_are_multinomial_and_repeatable() -> None:
    counts = np.concatenate(list(draws(50, 300, seed=4)))
    assert counts.shape == (300, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert np.array_equal(counts, np.concatenate(list(draws(50, 300, seed=4))))
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.1)


def test_sum_and_harmonic_by_hand() -> None:
    credits = [Credit(f"{c}{i}", f"{c}{i}", c, float(i < right)) for c, right in (("a", 1), ("b", 3)) for i in range(4)]
    made = measure_all(
        suite(Measure("sum", "sum", {"a": 0.3, "b": 0.7}), Measure("f", "harmonic", {"a": 1, "b": 1})),
        credits,
        resamples=0,
    )
    assert made["sum"].percent == pytest.approx(100 * (0.3 / 4 + 0.7 * 3 / 4))
    assert made["f"].percent == pytest.approx(100 * 2 * 0.25 * 0.75)
    assert math.isnan(made["f"].low)


def test_one_cluster_has_no_interval_and_unscored_has_no_percent() -> None:
    credits = [Credit("x", "p", "a", 1.0), Credit("y", "p", "a", 0.0, 0.0, unscored=True)]
    made = measure_all(suite(Measure("all", "pool", {"a": 1})), credits)["all"]
    assert (made.percent, made.n, made.unscored, made.denominator) == (100, 1, 1, 1)
    assert math.isnan(made.low)
    lost = measure_all(suite(Measure("all", "pool", {"a": 1})), credits[1:])["all"].as_json()
    assert (lost["percent"], lost["unscored"], lost["n"]) == (None, 1, 0)


def test_json_has_percent_numerator_and_denominator() -> None:
    made = measure_all(suite(Measure("all", "pool", {"*": 1.0})), clustered(0.5, 10, seed=2))
    for value in made.values():
        plain = value.as_json()
        assert plain["percent"] == pytest.approx(100 * plain["numerator"] / plain["denominator"])


def test_aligned_tables_share_rows_and_columns() -> None:
    credits = [Credit("x", "p", "a", 1.0), Credit("y", "q", "b", 1.0, tie=True)]
    table = cells_of(credits, cells=("b", "a"), clusters=("q", "p"))
    assert table.earned.tolist() == [[1, 0], [0, 1]]
    assert table.ties.tolist() == [1, 0]
