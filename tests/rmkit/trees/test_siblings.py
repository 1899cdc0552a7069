"""Pair rules against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rmkit import plugins
from rmkit.errors import DataError
from rmkit.trees.rules import StepPair, siblings
from rmkit.trees.siblings.extremes import implicit_q
from rmkit.trees.siblings.score_gap import balance
from rmkit.trees.tree import Builder, Facts, Path, Tree, build


def path(text: str, outcome: float = math.nan, group: str = "") -> Path:
    return Path(steps=tuple(text), outcome=outcome, group=group)


def searched(**nodes: Facts) -> Tree:
    builder = Builder()
    for steps, facts in nodes.items():
        builder.mark(steps, facts)
    return builder.tree()


def named(tree: Tree, pairs: list[StepPair]) -> list[tuple[str, str]]:
    return [("".join(tree.steps(one.chosen)), "".join(tree.steps(one.rejected))) for one in pairs]


@pytest.mark.parametrize(
    ("n_chosen", "n_rejected", "confidence", "smoothing"), [(30, 10, 0.75, 0.25), (10, 30, 0.25, 0.5)]
)
def test_visits_make_the_confidence(n_chosen: int, n_rejected: int, confidence: float, smoothing: float) -> None:
    tree = searched(a=Facts(q=0.9, visits=n_chosen), b=Facts(q=0.2, visits=n_rejected))
    [pair] = siblings(tree, "by_value")
    assert named(tree, [pair]) == [("a", "b")]
    assert (pair.confidence, pair.smoothing, pair.p) == (confidence, smoothing, 1 - smoothing)


def test_all_siblings_of_the_best_path_are_compared_and_equal_ones_are_not() -> None:
    tree = searched(
        a=Facts(q=0.2), b=Facts(q=0.9), c=Facts(q=0.2), ba=Facts(q=0.4), bb=Facts(q=0.8), aa=Facts(q=0), ab=Facts(q=1)
    )
    assert named(tree, siblings(tree, "by_value")) == [("b", "a"), ("b", "c"), ("bb", "ba")]
    everywhere = siblings(tree, {"use": "by_value", "everywhere": True})
    assert ("ab", "aa") in named(tree, everywhere)
    assert len(everywhere) == 4


def test_a_step_is_followed_as_long_as_nothing_is_chosen() -> None:
    tree = build([path("abc", 1), path("xyz", 0), path("xyw", 0), path("q", 0), path("qr", 0)])
    assert named(tree, siblings(tree, "by_value")) == [("abc", "q"), ("abc", "xy")]  # q ends there itself
    assert named(tree, siblings(tree, {"use": "by_value", "merge": False})) == [("a", "q"), ("a", "x")]


def test_the_best_child_stands_against_the_worst() -> None:
    tree = build([path("aa", 1), path("ab", 0), path("b", 0), path("c", 0), path("c", 1)])
    # means: a .5, b 0, c .5; of equals the first; below a: 1 against 0
    assert named(tree, siblings(tree, "extremes")) == [("a", "b"), ("aa", "ab")]
    assert named(tree, siblings(tree, {"use": "extremes", "gap": 0.6})) == [("aa", "ab")]


def test_q_of_a_dpo_model_is_the_geometric_mean_of_normalized_ratios() -> None:
    policy, reference = [[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    # ratios (1, 0, 0) and (0, 0, 5): softmax at token 0: e/(e+2), at token 2: e^5/(e^5+2)
    e = math.e
    want = math.sqrt(e / (e + 2) * e**5 / (e**5 + 2))
    assert implicit_q(policy, reference, [0, 2]) == pytest.approx(want, rel=1e-12)
    assert implicit_q(np.array(policy) + 7, reference, [0, 2]) == pytest.approx(want, rel=1e-12)
    with pytest.raises(DataError):
        implicit_q(policy, reference, [])


def test_the_path_to_success_is_preferred_to_each_failed_sibling() -> None:
    # three steps to success, with two failed siblings at the first and one at the third
    tree = build([path("abc", 1), path("x", 0), path("yz", 0), path("abd", 0)])
    pairs = siblings(tree, "on_path")
    assert named(tree, pairs) == [("a", "x"), ("a", "y"), ("abc", "abd")]
    for pair in pairs:  # both sides share the prefix and differ at its end
        chosen, rejected = tree.steps(pair.chosen), tree.steps(pair.rejected)
        assert chosen[:-1] == rejected[:-1]
        assert chosen[-1] != rejected[-1]


def test_siblings_that_also_succeed_are_unknown_or_met_an_outage_are_in_no_pair() -> None:
    builder = Builder()
    for one in (path("ab", 1), path("cd", 1), path("e"), path("f", 0), path("g", 0)):
        builder.add(one)
    builder.mark("g", Facts(stop="outage"))
    tree = builder.tree()
    assert named(tree, siblings(tree, "on_path")) == [("a", "f"), ("c", "f")]
    assert siblings(build([path("ab", 0), path("c", 0)]), "on_path") == []


def test_pairs_go_across_equivalence_classes_and_each_prompt_weighs_one() -> None:
    tree = build([path("a", 1, "py"), path("b", 1, "c"), path("c", 0, "py"), path("d", 0, "go"), path("e", 0)])
    pairs = siblings(tree, "across_groups")
    assert named(tree, pairs) == [("a", "d"), ("a", "e"), ("b", "c"), ("b", "d"), ("b", "e")]
    assert {pair.weight for pair in pairs} == {1 / 6}
    # published loss of log-ratios l_w (.6, .2), l_l (-.5, .1, -.2), beta .5, from these weights: .5574
    tree = build([*(path(f"w{x}", 1, f"w{x}") for x in "12"), *(path(f"l{x}", 0, f"l{x}") for x in "123")])
    ratio = dict(zip(["w1", "w2", "l1", "l2", "l3"], [0.6, 0.2, -0.5, 0.1, -0.2], strict=True))
    loss = sum(
        one.weight * math.log1p(math.exp(-0.5 * (ratio[w] - ratio[v])))
        for one, (w, v) in zip(
            siblings(tree, "across_groups"), named(tree, siblings(tree, "across_groups")), strict=True
        )
    )
    assert loss == pytest.approx(0.5574, abs=5e-5)


def test_pairs_by_scores_far_apart_where_the_worse_one_still_runs() -> None:
    tree = build([path("a", 0.9), path("b", 0.45), path("c", 0.55), path("d", 0.0), path("e", 0.75)])
    assert named(tree, siblings(tree, "score_gap")) == [("a", "b")]  # c is too close, d does not compile, e is no .8
    # rescoring by reflections makes the sparse prompt usable: the parent takes the mean of its children
    sparse = build([path("a", 0.1), path("b", 0.2), path("ax", 1), path("ay", 0.9)])
    assert named(sparse, siblings(sparse, {"use": "score_gap", "value": "mean"})) == []
    assert named(sparse, siblings(sparse, "score_gap")) == [("a", "b")]


def test_samples_are_weighted_by_what_is_rare_of_them() -> None:
    alpha, beta = balance([0.2, 0.6], [1.0, 0.5])  # ratios .5, 1.5 and 4/3, 2/3
    assert alpha.tolist() == pytest.approx([4 / 3, 1.5])
    assert beta.tolist() == pytest.approx([0.5, 2 / 3])
    assert balance([0.01, 0.01, 0.01, 9.97], [0, 0, 0, 0], clip=2)[0].tolist() == [1, 1, 1, 2]


def test_pairs_carry_the_weights_of_what_they_choose() -> None:
    """Chosen steps of probability .2 and .6, reward 1 and .9: ratios .5, 1.5 and 1/.95, .9/.95."""
    builder = Builder()
    for steps, outcome in (("a", 0.5), ("b", 0.3), ("ac", 1.0), ("ad", 0.9), ("ae", 0.4)):
        builder.add(path(steps, outcome))
    for steps, prior in (("ac", 0.2), ("ad", 0.6)):
        builder.mark(tuple(steps), Facts(prior=prior))
    tree = builder.tree()
    rule = {"use": "score_gap", "value": "mean"}
    names = [("ac", "ae"), ("ad", "ae")]
    for which, weights in (("alpha", [1 / 0.95, 1.5]), ("beta", [0.5, 0.9 / 0.95])):
        pairs = siblings(tree, rule | {"weight": which})
        assert named(tree, pairs) == names
        assert [pair.weight for pair in pairs] == pytest.approx(weights)
    assert {pair.weight for pair in siblings(tree, rule)} == {1.0}


@pytest.mark.parametrize("name", plugins.BUILT_IN["tree_pairs"])
def test_pairs_do_not_depend_on_the_order_of_completions(name: str) -> None:
    paths = [path("abc", 1, "x"), path("abd", 0.3, "y"), path("ae", 0.2, "z"), path("f", 0.1), path("f", 0.2)]
    first, second = build(paths), build(paths[::-1])
    assert siblings(first, name) == siblings(second, name) != []


@pytest.mark.parametrize("name", plugins.BUILT_IN["tree_pairs"])
def test_a_tree_of_one_path_gives_no_pair(name: str) -> None:
    assert siblings(build([path("abc", 1)]), name) == []
