"""Labels of single responses: every number against scikit-learn on three real files, intervals against a bootstrap."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from evaluation.scoring import credit_table
from evaluation.scoring.measures import measure_all
from evaluation.suites.absolute import absolute, xstest_labels
from evaluation.suites.items import Answer, Item
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite
from rmkit.errors import DataError
from rmkit.metrics.absolute import average_precision, concordance, influences, quadratic_kappa
from rmkit.types import sigmoid

FILES = {"convai": 1231, "feedbackqa": 3924, "xstest-labels": 2245}


def answers(items: list[Item], *, seed: int = 1) -> dict[str, Answer]:
    """Scores that know the label a little, rounded so that some are equal."""
    draw = np.random.default_rng(seed)
    scores = [round(float(0.4 * item.gold["label"] + draw.normal()), 1) for item in items]
    return {item.id: Answer(item.id, (one,), predicted=sigmoid(one)) for item, one in zip(items, scores, strict=True)}


SLOW = [pytest.param(name, marks=[] if name == "xstest-labels" else pytest.mark.slow) for name in FILES]


@pytest.mark.parametrize("name", SLOW)
def test_every_number_is_scikit_learns(shared_data: Path, name: str) -> None:
    suite = load_suite(name)
    items = list(load_items(suite, str(shared_data)).items)
    assert len(items) == FILES[name]
    given = answers(items)
    measured = measure_all(suite, credit_table(suite, items, given), resamples=50)
    for subset in {item.subset for item in items}:
        members = [item for item in items if item.subset == subset]
        score = np.array([given[item.id].scores[0] for item in members])
        p, good = np.array([sigmoid(one) for one in score]), np.array([item.gold["good"] for item in members])
        label = np.array([item.gold["label"] for item in members])
        expected = {
            "average_precision": metrics.average_precision_score(good, score),
            "precision": metrics.precision_score(good, p >= 0.5),
            "recall": metrics.recall_score(good, p >= 0.5),
            "brier": metrics.brier_score_loss(good, p),
        }
        if len(np.unique(label)) == 2:
            expected["auroc"] = metrics.roc_auc_score(label, score)
        for part, value in expected.items():
            assert measured[f"{subset}/{part}"].percent == pytest.approx(100 * value, abs=1e-9), part
        if name == "feedbackqa":
            ours = measured[f"{subset}/kappa"].percent / 100
            counts = [int((label == level).sum()) for level in (1, 2, 3, 4)]
            levels = np.repeat([1, 2, 3, 4], counts)[np.argsort(np.argsort(score, kind="stable"), kind="stable")]
            assert ours == pytest.approx(metrics.cohen_kappa_score(levels, label, weights="quadratic"), abs=1e-9)


def test_concordance_by_hand() -> None:
    """Ratings 1, 2, 3, 3: of the five pairs with different ratings three are in order, one is even, one is not."""
    assert concordance([0.1, 0.5, 0.5, 0.3], [1, 2, 3, 3], np.ones((1, 4))).tolist() == [3.5 / 5]
    assert concordance([0.1, 0.5, 0.5, 0.3], [1, 2, 3, 3], [[1, 1, 2, 0]]).tolist() == [(1 + 2 + 1) / 5]
    assert math.isnan(concordance([1, 2], [1, 1], np.ones((1, 2)))[0])


def test_weights_count_items() -> None:
    draw = np.random.default_rng(2)
    score, good, level = draw.normal(size=30).round(1), draw.integers(0, 2, 30), draw.integers(0, 4, 30)
    guess, weight = draw.integers(0, 4, 30), draw.integers(0, 3, 30)
    again = np.repeat(np.arange(30), weight)
    one = np.ones((1, len(again)))
    assert concordance(score, good, weight) == pytest.approx(concordance(score[again], good[again], one))
    assert average_precision(score, good, weight) == pytest.approx(average_precision(score[again], good[again], one))
    assert quadratic_kappa(guess, level, weight) == pytest.approx(quadratic_kappa(guess[again], level[again], one))


@pytest.mark.parametrize("part", ["auroc", "average_precision", "kappa"])
def test_intervals_are_those_of_a_bootstrap_over_prompts(part: str) -> None:
    draw = np.random.default_rng(5)
    cluster = np.repeat(np.arange(120), 3)
    label = np.clip((draw.normal(size=120)[cluster] + 0.5 * draw.normal(size=360)).round(), -1, 2) + 1
    score = (label + 2.5 * draw.normal(size=120)[cluster] + draw.normal(size=360)).round(1)
    guess = np.clip((score / 3 + 1).round(), 0, 3)
    statistic: dict[str, Any] = {
        "auroc": lambda w: concordance(score, label, w),
        "average_precision": lambda w: average_precision(score, label > 1, w),
        "kappa": lambda w: quadratic_kappa(guess, label, w),
    }
    value, by_item = influences(statistic[part], np.stack([score, label], axis=1))
    assert by_item.mean() == pytest.approx(value, abs=1e-9)
    counts = np.array([np.bincount(draw.integers(0, 120, 120), minlength=120) for _ in range(600)])
    spread = statistic[part](counts[:, cluster].astype(float)).std()
    linear = [(row[cluster] * by_item).sum() / row[cluster].sum() for row in counts]
    assert np.std(linear) == pytest.approx(spread, rel=0.12)


def rows(**more: Any) -> list[dict[str, Any]]:
    return [{"prompt": "a", "response": "x", "label": 1} | more, {"prompt": "b", "response": "y", "label": 0}]


def test_spellings_of_labels() -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes", "thumb": "up"}]
    talk += [{"role": "user", "content": "and"}, {"role": "assistant", "content": "no", "thumb": "down"}]
    up, down = absolute([{"id": "t", "messages": talk}], "file")
    assert (up.gold, down.gold) == ({"label": 1.0, "good": True}, {"label": 0.0, "good": False})
    assert up.candidates is not None
    assert down.candidates is not None
    assert [turn.content for turn in down.candidates.prompt] == ["hi", "yes", "and"]
    votes = [{"score": 2}, {"score": 3}]
    assert [one.gold["label"] for one in absolute(rows(labels=votes), "file")] == [3.0, 0.0]
    assert [one.gold["good"] for one in absolute(rows(label="down", good=True), "file")] == [True, False]
    safe = {"prompt": "a", "responses": [{"text": "x", "final_label": "2_full_refusal"}]}
    unsafe = safe | {"prompt": "b", "meta": {"unsafe_prompt": True}}
    assert [one.gold["label"] for one in xstest_labels([safe, unsafe], "file")] == [0.0, 2.0]
    with pytest.raises(DataError, match="row 1: not of form 'absolute'"):
        absolute(rows(label="fine"), "file")


def test_what_is_not_scored_is_the_worst_of_all() -> None:
    suite = load_suite("absolute")
    items = absolute([*rows(), {"prompt": "c", "response": "z", "label": 1}], "file")
    given = answers(items) | {items[0].id: Answer(items[0].id, (math.nan,), unscored="too long")}
    measured = measure_all(suite, credit_table(suite, items, given), resamples=0)
    brier = measured["all/brier"]
    assert brier.unscored == 1
    assert brier.of_all is not None
    assert brier.of_all.numerator == pytest.approx(brier.numerator + 1)
    assert brier.of_all.denominator == brier.denominator + 1


def test_a_suite_says_from_where_on_a_response_is_called_good() -> None:
    rows = [{"prompt": f"q{n}", "response": "r", "label": label} for n, label in enumerate([1, 1, 0, 0, 1])]
    items = absolute(rows, "here")
    predicted = (0.9, 0.6, 0.65, 0.1, 0.75)
    given = {item.id: Answer(item.id, (p,), predicted=p) for item, p in zip(items, predicted, strict=True)}
    for threshold, (precision, recall) in {0.5: (3 / 4, 1), 0.7: (1, 2 / 3), 0.62: (2 / 3, 2 / 3)}.items():
        suite = replace(load_suite("absolute"), threshold=threshold)
        measured = measure_all(suite, credit_table(suite, items, given), resamples=10)
        assert measured["all/precision"].percent == pytest.approx(100 * precision)
        assert measured["all/recall"].percent == pytest.approx(100 * recall)
