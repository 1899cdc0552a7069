"""Probes on models whose bias is known, and best-of-N against brute force over all subsets."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.probes import probes
from evaluation.probes.best_of_n import best_of_n_probe, kl, weights
from evaluation.probes.comparisons import comparisons
from evaluation.probes.position import position_probe
from evaluation.probes.style import marks, partial_correlation
from evaluation.suites.forms import item_of
from evaluation.suites.items import Answer, Item
from evaluation.suites.suite import load_suite
from rmkit.types import ModelInfo

INFO = ModelInfo("m", "explicit", "logit", True, "f" * 32)


def pair(name: str, better: str, worse: str) -> Item:
    return item_of(name, "s", f"prompt {name}", (better, worse), {})


def probed(items: Sequence[Item], reward: Any, suite: str = "pairs") -> dict[str, Any]:
    answers = {}
    for item in items:
        assert item.candidates is not None
        answers[item.id] = Answer(item.id, tuple(reward(c.text) for c in item.candidates.completions))
    return probes(load_suite(suite), items, answers, INFO)


LONGER = [pair(str(i), "word " * (i + 4), "word " * 2) for i in range(12)]
SHORTER = [pair(f"s{i}", "word " * 2, "word " * (i + 4)) for i in range(6)]
NEAR = [pair(f"n{i}", "good " * 20, "evil " * 20) for i in range(4)]


def test_length_rule_is_seen_for_what_it_is() -> None:
    length = probed([*LONGER, *SHORTER, *NEAR], lambda text: float(len(text)))["length"]
    assert length["accuracy"]["longer"]["percent"] == 100
    assert length["accuracy"]["shorter"]["percent"] == 0
    assert (length["accuracy"]["equal"]["percent"], length["accuracy"]["equal"]["ties"]) == (0, 4)
    assert length["pearson"] == pytest.approx(1)
    assert (length["longer_is_better"]["numerator"], length["longer_is_better"]["denominator"]) == (12, 18)


def test_model_without_length_bias_is_the_same_in_all_slices() -> None:
    items = [*LONGER, *SHORTER, *NEAR]
    answers = {item.id: Answer(item.id, (1.0, 0.0) if int(item.cluster, 16) % 4 else (0.0, 1.0)) for item in items}
    found = probes(load_suite("pairs"), items, answers, INFO)["length"]["accuracy"]
    for name, part in (("longer", LONGER), ("shorter", SHORTER), ("equal", NEAR)):
        right = sum(answers[item.id].scores[0] for item in part)
        assert (found[name]["numerator"], found[name]["denominator"]) == (right, len(part))


MARKDOWN = "# Title\n\n- one\n- two\n1. three\n**bold** and **more**\n```\ncode\n```\n"


def test_marks_are_counted() -> None:
    assert marks(MARKDOWN) == 1 + 3 + 2 + 2
    assert marks("plain - not a list, 2 * 3 * 4, # no heading?") == 0
    assert marks("") == 0


def test_style_lover_is_told_apart_from_a_length_lover() -> None:
    generator = np.random.default_rng(1)
    items = []
    for i in range(200):
        n = generator.integers(1, 30, size=2)
        styled = generator.integers(0, 2, size=2)
        texts = [("- item\n" if s else "x item\n") * 5 + "word " * int(k) for s, k in zip(styled, n, strict=True)]
        items.append(pair(str(i), *texts))
    by_style = probed(items, lambda text: math.log1p(marks(text)))["style"]
    by_length = probed(items, lambda text: math.log1p(len(text)))["style"]
    assert by_style["correlation"] == pytest.approx(1)
    assert by_style["partial"] == pytest.approx(1)
    assert by_length["partial"] is None  # nothing is left of a length rule once length is taken out
    noisy = probed(items, lambda text: math.log1p(len(text)) + 0.3 * zlib.crc32(text.encode()) / 2**32)["style"]
    assert abs(noisy["partial"]) < 0.2
    assert by_style["accuracy"]["richer"]["percent"] == 100
    assert by_style["accuracy"]["plainer"]["percent"] == 0
    assert by_style["accuracy"]["equal"]["ties"] == by_style["accuracy"]["equal"]["denominator"]


def test_partial_correlation_against_residuals_of_scipy() -> None:
    generator = np.random.default_rng(2)
    given_ = generator.normal(size=300)
    x, y = given_ + generator.normal(size=300), 0.5 * given_ + generator.normal(size=300)
    residual = [v - given_ * np.linalg.lstsq(given_[:, None], v, rcond=None)[0] for v in (x, y)]
    expected = residual[0] @ residual[1] / np.linalg.norm(residual[0]) / np.linalg.norm(residual[1])
    assert partial_correlation(x, y, given_) == pytest.approx(expected)


def test_position_by_hand() -> None:
    # Turned to the same reply: (as shown, swapped).
    answers = [
        Answer("1", p=(0.9, 0.8)),  # consistent
        Answer("2", p=(0.9, 0.2)),  # whatever stands first
        Answer("3", p=(0.1, 0.7)),  # whatever stands second
        Answer("4", p=(0.5, 0.5)),  # a consistent tie
        Answer("5", p=(0.9, 0.5)),  # a verdict and a tie
        Answer("6", p=(0.9, math.nan)),
        Answer("7", (1.0, 2.0)),
    ]
    found = position_probe(answers)
    assert found is not None
    assert (found["n"], found["consistent"]["numerator"]) == (5, 2)
    assert (found["prefers_first"]["numerator"], found["prefers_first"]["denominator"]) == (2, 3)
    assert found["mean_swap_gap"] == pytest.approx((0.1 + 0.7 + 0.6 + 0 + 0.4) / 5)
    assert position_probe(answers[-1:]) is None


@given(st.lists(st.integers(0, 4), min_size=3, max_size=7), st.data())
def test_best_of_n_weights_are_those_of_all_subsets(scores: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    expected = np.zeros(len(scores))
    subsets = list(combinations(range(len(scores)), n))
    for subset in subsets:
        top = max(scores[i] for i in subset)
        best = [i for i in subset if scores[i] == top]
        expected[best] += 1 / len(best) / len(subsets)
    # A tie splits evenly between equal scores overall, as drawing fairly among the favorites does.
    assert weights(scores, n) == pytest.approx(expected)


def test_best_of_n_curve_by_hand_and_over_optimization() -> None:
    assert kl(1) == 0
    assert kl(4) == pytest.approx(math.log(4) - 0.75)
    items = [Item("a", "s", "a", {"values": [0.0, 3.0, 1.0]}), Item("b", "s", "b", {"values": [1.0, 2.0, 3.0]})]
    answers = [Answer("a", (1.0, 2.0, 3.0)), Answer("b", (1.0, 2.0, 3.0))]
    found = best_of_n_probe(items, answers)
    assert found is not None
    gold = [point["gold"] for point in found["curve"]]
    # a: best of 2 is 1 with chance 2/3 (index 2), 3 with chance 1/3; b: 3 with 2/3, 2 with 1/3.
    assert gold == pytest.approx([(4 / 3 + 2) / 2, (2 / 3 + 1 + 2 + 2 / 3) / 2, (1 + 3) / 2])
    assert gold[2] < gold[1]  # more optimization of this proxy, less gold
    assert [point["oracle"] for point in found["curve"]][-1] == 3
    proxy = [point["proxy"] for point in found["curve"]]
    assert proxy == sorted(proxy)
    assert proxy[0] == pytest.approx(0)


def test_best_of_n_leaves_lost_scores_out_and_counts_them() -> None:
    items = [Item(name, "s", name, {"values": [0.0, 1.0, 2.0]}) for name in "ab"]
    answers = [Answer("a", (1.0, math.nan, 0.0)), Answer("b", (1.0, 2.0, 3.0))]
    found = best_of_n_probe(items, answers)
    assert found is not None
    assert (found["prompts"], found["left_out"]) == (1, 1)
    assert best_of_n_probe(items[:1], answers[:1]) is None


def test_calibration_looks_from_both_sides() -> None:
    items = [pair(str(i), "aa", "b") for i in range(10)]
    answers = {item.id: Answer(item.id, (math.log(3) if i < 7 else -math.log(3), 0.0)) for i, item in enumerate(items)}
    found = probes(load_suite("pairs"), items, answers, INFO)["calibration"]
    assert found["n"] == 10
    assert found["ece"] == pytest.approx(0.05)  # says 75%, right on 70%
    assert found["brier"] == pytest.approx((7 * 0.25**2 + 3 * 0.75**2) / 10)
    rating = ModelInfo("m", "generative", "rating", True, "f")
    assert "calibration" not in probes(load_suite("pairs"), items, answers, rating)  # ratings are no probabilities


def test_mistakes_are_the_worst_first_and_once_an_item() -> None:
    item = item_of("m", "chat", "prompt", list("abcdef"), {})
    answers = {item.id: Answer(item.id, (1.0, 2.0, 3.0, 9.0, 0.0, 0.0))}
    found = probes(load_suite("rm-bench"), [item], answers, INFO)["mistakes"]
    assert [(one["better"], one["worse"], one["margin"]) for one in found] == [("a", "d", -8.0)]


def test_comparisons_follow_the_gold_of_every_rule() -> None:
    nway = item_of("n", "s", "p", ["x", "y", "z"], {"values": [1.0, 1.0, 2.0]})
    votes = item_of("v", "s", "p", ["x", "y"], {"votes": ["b", "b", "tie"]})
    best = item_of("b", "Math", "p", ["x", "y", "z"], {"num_correct": 1})
    for suite, item, expected in (
        ("nway", nway, [(2, 0), (2, 1)]),
        ("annotators", votes, [(1, 0)]),
        ("rewardbench2", best, [(0, 1), (0, 2)]),
    ):
        answer = Answer(item.id, tuple(float(i) for i in range(len(item.candidates.completions))))  # type: ignore[union-attr]
        found = comparisons(load_suite(suite), [item], {item.id: answer})
        assert [(one.better, one.worse) for one in found] == expected
        assert all(one.margin == one.better - one.worse for one in found)
