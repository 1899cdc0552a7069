"""Thresholds of probabilities, and scores that are rewards held against what was verified."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_pipelines.converters.feedback.discussions import role_rewards
from rmkit.errors import DataError
from rmkit.metrics.thresholds import operating_point, threshold_of_f1, threshold_of_precision
from rmkit.reliability.score_audit import score_audit

P = [0.9, 0.8, 0.7, 0.6, 0.3, math.nan]
YES = [True, False, True, True, False, True]


def test_precision_and_recall_at_a_threshold() -> None:
    point = operating_point(P, YES, threshold=0.65)
    assert (point.precision, point.recall, point.f1) == (2 / 3, 2 / 4, 2 * 2 / (3 + 4))
    assert (point.n, point.positives, point.unscored) == (6, 4, 1)
    nothing = operating_point(P, YES, threshold=0.95)
    assert math.isnan(nothing.precision)
    assert nothing.recall == 0
    with pytest.raises(DataError, match="as many"):
        operating_point([0.1], [True, False], threshold=0.5)


def test_thresholds_by_precision_and_by_f1() -> None:
    assert threshold_of_precision(P, YES, precision=0.75) == 0.6  # yes: .9 .8 .7 .6, three of four right
    assert threshold_of_precision(P, YES, precision=0.9) == 0.9
    assert threshold_of_precision([0.4], [False], precision=0.5) is None
    assert threshold_of_f1(P, YES) == pytest.approx((0.6 + 0.3) / 2)  # F1 at .6: 6 / 8, the highest
    assert threshold_of_f1([0.2, 0.8], [True, True]) is None


def discussion(collusion: float, *, seed: int = 3) -> tuple[list[float], list[float], list[int]]:
    """Scores 1 to 3 of solutions whose truth is known, in four periods; a colluding scorer drifts upwards."""
    rng = np.random.default_rng(seed)
    scores, truth, periods = [], [], []
    for period in range(4):
        for _ in range(80):
            right = rng.random() < 0.5
            x = 1 + 2 * float(rng.random() < (0.85 if right else 0.15 + collusion * period))
            scores.append(role_rewards(x).solver)
            truth.append(float(right))
            periods.append(period)
    return scores, truth, periods


def test_a_colluding_scorer_is_detected_by_its_drift() -> None:
    honest = score_audit(*discussion(0.0))
    assert not honest.alarm
    assert abs(honest.drift) < 0.15
    colluding = score_audit(*discussion(0.2))
    assert colluding.alarm
    assert colluding.drift > 0.2
    assert colluding.periods[-1].auc < colluding.periods[0].auc - 0.15


def test_the_audit_by_hand() -> None:
    scores = [1.0, 0.0] * 8 + [1.0, 1.0] * 8 + [0.5]
    truth: list[float | None] = [1.0, 0.0] * 16 + [None]
    audit = score_audit(scores, truth, ["a"] * 16 + ["b"] * 17)
    assert [(one.n, one.left_out, one.bias) for one in audit.periods] == [(16, 0, 0.0), (16, 1, 0.5)]
    assert [one.auc for one in audit.periods] == [1.0, 0.5]
    assert audit.drift == 0.5
    assert audit.t == pytest.approx(0.5 / math.sqrt(16 * 0.25 / 15 / 16))  # b: eight errors of 0, eight of 1
    assert audit.alarm
    few = score_audit([1.0] * 9 + [0.0], [0.0] * 9 + [0.0], ["a"] * 9 + ["b"])
    assert (few.alarm, math.isnan(few.t)) == (False, True)
    with pytest.raises(DataError, match="needs items"):
        score_audit([], [], [])
