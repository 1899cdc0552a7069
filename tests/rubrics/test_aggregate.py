"""Aggregation of criteria: numbers derived by hand, and what must not matter."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmkit.errors import DataError
from rubrics.aggregate import aggregate, aggregate_group, require_total
from rubrics.criteria import Criterion


def criterion(weight: float = 1.0, tag: str | None = None, **more: Any) -> Criterion:
    return Criterion(criterion=f"c{weight}{tag}", weight=weight, tag=tag, **more)


def test_a_weighted_sum() -> None:
    found = aggregate([criterion(3), criterion(1)], [0.5, 1.0])
    assert found.value == pytest.approx((1.5 + 1) / 4)
    assert (found.components, found.coverage) == ((0.5, 1.0), 1.0)


def test_penalties_are_taken_off_and_the_sum_is_cut_at_zero() -> None:
    criteria = [criterion(5), criterion(3), criterion(-4)]
    assert aggregate(criteria, [1, 0, 0]).value == pytest.approx(5 / 8)
    assert aggregate(criteria, [1, 0, 1]).value == pytest.approx(1 / 8)
    assert aggregate(criteria, [0, 1, 1]).value == 0.0


def test_an_abstention_leaves_the_sum_with_its_weight() -> None:
    found = aggregate([criterion(3), criterion(1)], [None, 0.5])
    assert (found.value, found.coverage, found.components) == (0.5, 0.25, (None, 0.5))
    nothing = aggregate([criterion(1)], [None])
    assert math.isnan(nothing.value)
    assert nothing.coverage == 0


def test_a_broken_hard_rule_closes_the_gate() -> None:
    criteria = [criterion(1, "hard_rule"), criterion(2, "principle"), criterion(1, "principle")]
    assert aggregate(criteria, [1, 0.5, 1], rule="gated").value == pytest.approx(2 / 3)
    shut = aggregate(criteria, [0, 1, 1], rule="gated")
    assert (shut.value, shut.broken, shut.components) == (0.0, (0,), (0, 1, 1))
    assert aggregate(criteria[:1], [1], rule="gated").value == 1.0
    assert aggregate(criteria, [None, 0.5, 1], rule="gated").value == pytest.approx(2 / 3)  # unknown is not broken


def test_a_product_is_pulled_down_by_one_failure() -> None:
    found = aggregate([criterion(1), criterion(3)], [0.25, 1.0], rule="product")
    assert found.value == pytest.approx(0.25**0.25)
    assert aggregate([criterion(1), criterion(3)], [0.0, 1.0], rule="product").value == 0.0


def test_normalize_then_sum_weighs_criteria_by_weight_and_not_by_spread() -> None:
    criteria = [criterion(1), criterion(1)]
    values = [[0.9, 0.1], [0.1, 0.12], [0.5, 0.14]]  # the second hardly varies, yet counts as much
    found = [one.value for one in aggregate_group(criteria, values, rule="normalized")]
    z = math.sqrt(3 / 2)
    assert found == pytest.approx([(z - z) / 2, (-z + 0) / 2, (0 + z) / 2])
    same = aggregate_group(criteria, [[0.3, 0.3], [0.3, 0.3]], rule="normalized")
    assert [one.value for one in same] == [0.0, 0.0]
    assert same[0].components == (0.3, 0.3)


@pytest.mark.parametrize(
    ("weights", "values", "rule", "said"),
    [
        ([1], [1.5], "weighted", r"\[0, 1\], got 1.5"),
        ([1], [float("nan")], "weighted", "got nan"),
        ([1, 1], [1], "weighted", "2 criteria, 1 values"),
        ([], [], "weighted", "at least one"),
        ([-1, -2], [1, 1], "weighted", "no criterion has a positive weight"),
        ([0, 0], [1, 1], "gated", "no criterion has a positive weight"),
        ([1, -1], [1, 1], "product", "no penalties"),
    ],
)
def test_senseless_input_is_refused(weights: list[float], values: list[float], rule: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        aggregate([criterion(weight) for weight in weights], values, rule=rule)


def test_weights_that_do_not_add_up_are_refused() -> None:
    require_total([criterion(0.7), criterion(0.3)], 1.0)
    with pytest.raises(DataError, match=r"add up to 0\.9, the rubric declares 1"):
        require_total([criterion(0.7), criterion(0.2)], 1.0)


values = st.none() | st.floats(0, 1)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0.1, 10), st.booleans(), values), min_size=1, max_size=6), st.randoms())
def test_the_order_of_criteria_changes_nothing(
    rows: list[tuple[float, bool, float | None]], rng: random.Random
) -> None:
    shuffled = rng.sample(rows, len(rows))
    for rule in ("weighted", "gated", "product"):
        one, other = (
            aggregate([criterion(w, "hard_rule" if h else None) for w, h, _ in part], [v for *_, v in part], rule=rule)
            for part in (rows, shuffled)
        )
        assert one.value == pytest.approx(other.value, nan_ok=True)
        assert math.isnan(one.value) or 0 <= one.value <= 1 + 1e-12
