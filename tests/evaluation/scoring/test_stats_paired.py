"""Paired tests and intervals against scipy and statsmodels, Holm by hand, and their error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from evaluation.scoring.paired import differences, holm, shared
from evaluation.suites.items import Credit
from evaluation.suites.suite import Measure, Subset, Suite
from rmkit.errors import DataError

POOL = Measure("all", "pool", {"*": 1.0})


def suite(*measures: Measure) -> Suite:
    subsets = (Subset(name="a"), Subset(name="b"))
    return Suite(name="t", title="t", rule="pairs", form="pairs", subsets=subsets, measures=measures or (POOL,))


def credits(earned: list[float], *, clusters: list[int] | None = None, cell: str = "a") -> list[Credit]:
    names = clusters if clusters is not None else list(range(len(earned)))
    return [Credit(f"{cell}{i}", f"{cell}{names[i]}", cell, float(value)) for i, value in enumerate(earned)]


def from_table(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[float], list[float]]:
    first = [1.0] * both + [1.0] * only_first + [0.0] * only_second + [0.0] * neither
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
    return first, second


def test_exact_p_is_mcnemars_exact_test_on_one_pair_a_prompt() -> None:
    first, second = from_table(both=30, only_first=9, only_second=2, neither=10)
    [found] = differences(suite(), credits(first), credits(second))
    assert found.p == pytest.approx(scipy.stats.binomtest(2, 11).pvalue)
    assert found.difference == pytest.approx(100 * 7 / 51)
    assert (found.only_first, found.only_second, found.n, found.clusters) == (9, 2, 51, 51)
    from statsmodels.stats import contingency_tables as statsmodels

    assert found.p == pytest.approx(statsmodels.mcnemar([[30, 9], [2, 10]], exact=True).pvalue)


def test_random_p_agrees_with_mcnemar_where_there_are_too_many_swaps_to_count() -> None:
    first, second = from_table(both=200, only_first=60, only_second=38, neither=100)
    [found] = differences(suite(), credits(first), credits(second), swaps=40_000)
    assert found.p == pytest.approx(scipy.stats.binomtest(38, 98).pvalue, rel=0.1)


def test_exact_p_of_clusters_is_scipys_permutation_test_over_clusters() -> None:
    generator = np.random.default_rng(2)
    clusters = sorted(generator.integers(0, 10, size=40).tolist())
    first, second = (generator.random(40) < 0.8).astype(float), (generator.random(40) < 0.4).astype(float)
    [found] = differences(
        suite(), credits(first.tolist(), clusters=clusters), credits(second.tolist(), clusters=clusters)
    )
    sums = [
        np.array([values[np.array(clusters) == c].sum() for c in sorted(set(clusters))]) for values in (first, second)
    ]
    reference = scipy.stats.permutation_test(
        sums, lambda x, y: abs(np.sum(x - y)), permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert found.p == pytest.approx(reference.pvalue)


def test_interval_of_a_difference_is_the_paired_one() -> None:
    generator = np.random.default_rng(3)
    hard = generator.random(2000)  # shared difficulty: the two are strongly correlated
    first, second = (hard < 0.7).astype(float), (hard < 0.65).astype(float)
    [found] = differences(suite(), credits(first.tolist()), credits(second.tolist()), resamples=4000)
    gain = first - second
    deviation = 100 * gain.std() / math.sqrt(len(gain))
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.06)
    reference = scipy.stats.bootstrap((gain,), np.mean, n_resamples=4000, method="percentile", rng=4)
    assert found.low == pytest.approx(100 * reference.confidence_interval.low, abs=0.1)


@pytest.mark.slow
def test_coverage_of_the_difference_is_about_95_percent() -> None:
    """Two items a prompt, correlated models; a longer run gives 94.5% at 250 prompts and 93.4% at 120."""
    runs, inside = 400, 0
    truth = 100 * (scipy.stats.norm.cdf(0.4 / math.sqrt(2)) - 0.5)
    clusters = np.arange(250).repeat(2).tolist()
    for run in range(runs):
        generator = np.random.default_rng(run)
        hard = generator.normal(size=250).repeat(2)
        first = (hard + generator.normal(size=500) < 0.4).astype(float)
        second = (hard + generator.normal(size=500) < 0).astype(float)
        pair = credits(first.tolist(), clusters=clusters), credits(second.tolist(), clusters=clusters)
        [found] = differences(suite(), *pair, resamples=400, swaps=1, seed=run + 10**6)
        inside += found.low <= truth <= found.high
    assert 0.93 <= inside / runs <= 0.97


@pytest.mark.slow
def test_p_is_below_a_twentieth_in_a_twentieth_of_the_runs_without_a_difference() -> None:
    runs, below = 400, 0
    for run in range(runs):
        generator = np.random.default_rng(1000 + run)
        shift = generator.random(60).repeat(3)  # three items a prompt: a test that ignores that rejects far too often
        clusters = np.arange(60).repeat(3).tolist()
        first = (generator.random(60).repeat(3) < shift).astype(float)
        second = (generator.random(60).repeat(3) < shift).astype(float)
        pair = credits(first.tolist(), clusters=clusters), credits(second.tolist(), clusters=clusters)
        below += differences(suite(), *pair, resamples=2, swaps=400, seed=run)[0].p <= 0.05
    assert 0.02 <= below / runs <= 0.075


def test_totals_over_unequal_cells_are_tested_as_totals() -> None:
    # Better on the small cell, slightly worse on the big one: the mean of cells and the pooled rate differ in sign.
    first = credits([1.0] * 18 + [0.0] * 2, cell="a") + credits([1.0] * 200 + [0.0] * 200, cell="b")
    second = credits([1.0] * 10 + [0.0] * 10, cell="a") + credits([1.0] * 212 + [0.0] * 188, cell="b")
    macro = Measure("macro", "mean", {"a": 1.0, "b": 1.0})
    by_name = {one.measure: one for one in differences(suite(macro, POOL), first, second)}
    assert by_name["macro"].difference == pytest.approx((40 - 3) / 2)
    assert by_name["all"].difference == pytest.approx(100 * -4 / 420)
    assert by_name["macro"].p < by_name["macro"].p_holm


def test_only_shared_scored_items_enter_and_missing_measures_stay_missing() -> None:
    first, second = credits([1, 0, 1]), credits([0, 0, 1])
    second[2] = Credit("a2", "a2", "a", 0.0, 0.0, unscored=True)
    ours, theirs = shared(first, second)
    assert [credit.item for credit in ours] == [credit.item for credit in theirs] == ["a0", "a1"]
    needs_b = Measure("macro", "mean", {"a": 1.0, "b": 1.0})
    [missing] = differences(suite(needs_b), first, second)
    assert missing.as_json()["p"] is None
    assert missing.as_json()["difference"] is None
    with pytest.raises(DataError, match="share no scored item"):
        shared(first, credits([1, 0, 1], cell="b"))


def test_equal_models_have_p_one() -> None:
    [found] = differences(suite(), credits([1, 0, 1, 1]), credits([1, 0, 1, 1]))
    assert (found.difference, found.p, found.low, found.high) == (0, 1, 0, 0)


def test_holm_by_hand_and_against_statsmodels() -> None:
    # 0.01 * 4, then max(.04, 0.02 * 3), max(.06, 0.03 * 2), max(.06, 0.2 * 1)
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    from statsmodels.stats import multitest

    p = np.random.default_rng(6).random(25) ** 3
    assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_items_that_earn_several_times_in_a_cell_count_every_time() -> None:
    """RM-Bench: three comparisons of an item in `hard`; the compared rates must be the evaluated ones."""
    from evaluation.scoring import credit_table
    from evaluation.scoring.measures import measure_all
    from evaluation.suites.items import Answer, Item
    from evaluation.suites.suite import load_suite

    rmbench, generator = load_suite("rm-bench"), np.random.default_rng(9)
    items = [Item(f"chat/{i}", "chat", f"chat/{i}") for i in range(30)]
    tables = []
    for _ in range(2):
        answers = {item.id: Answer(item.id, tuple(generator.normal(size=6))) for item in items}
        answers["chat/3"] = Answer("chat/3", (1.0, math.nan, 1.0, 0.0, 0.0, 0.0))
        tables.append(credit_table(rmbench, items, answers))
    alone = [measure_all(rmbench, table, resamples=0)["chat/hard"].percent for table in tables]
    [found] = differences(rmbench, *tables, measures=["chat/hard"])
    assert (found.first, found.second) == (pytest.approx(alone[0]), pytest.approx(alone[1]))
    assert (found.n, found.clusters) == (89, 30)
