"""Label rules against values worked out by hand, and the properties that all of them share."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from rmkit import plugins
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.trees.labels.distance import Distance
from rmkit.trees.labels.prover_progress import best_of
from rmkit.trees.refinement import refinements
from rmkit.trees.rules import Named, action_values, label
from rmkit.trees.starts import Starts
from rmkit.trees.tree import Builder, Facts, Path, Tree, build

NAN = math.nan


def path(text: str, outcome: float = NAN, start: int = 0, group: str = "") -> Path:
    """A path of one-letter steps."""
    return Path(steps=tuple(text), outcome=outcome, start=start, group=group)


def along(tree: Tree, rule: Named, steps: str) -> list[float]:
    """The labels of a completion's steps."""
    values = label(tree, rule)
    return [round(float(values[node]), 12) for node in tree.walk(tuple(steps))]


# The solution abcd is wrong; two of three continuations of a, one of two of ab, none of abc come out right.
ROLLOUTS = [
    path("abcd", 0),
    path("axy", 1, 1),
    path("axz", 1, 1),
    path("ayz", 0, 1),
    path("abx", 1, 2),
    path("aby", 0, 2),
    path("abcx", 0, 3),
    path("b", NAN),
]


def test_the_mean_counts_what_was_sampled_at_a_node_or_before() -> None:
    # a: own 2/3 and the solution's 0 -> 2/4; ab: 1/2 and the solution's 0 -> 1/3; abc: 0; the leaf: 0
    assert along(build(ROLLOUTS), "mean", "abcd") == [0.5, round(1 / 3, 12), 0.0, 0.0]
    # with all that go through, as a search backs them up: 3 of 7, 1 of 4, 0 of 2
    below: Named = {"use": "mean", "over": "below"}
    assert along(build(ROLLOUTS), below, "abcd") == [round(3 / 7, 12), 0.25, 0.0, 0.0]
    assert along(build(ROLLOUTS), {"use": "mean", "threshold": 0.5}, "abcd") == [1.0, 0.0, 0.0, 0.0]


def test_what_nobody_could_verify_has_no_label() -> None:
    tree = build(ROLLOUTS)
    for name in plugins.BUILT_IN["tree_labels"]:
        assert math.isnan(label(tree, name)[tree.walk("b")[0]]), name


def test_the_mean_of_rewards_is_clamped_where_the_paper_does() -> None:
    tree = build([path("a", 1.4), path("ab", 1.2), path("c", -0.5)])
    assert along(tree, "mean", "ab") == [1.3, 1.2]
    assert along(tree, {"use": "mean", "low": 0, "high": 1}, "ab") == [1.0, 1.0]
    assert along(tree, {"use": "mean", "low": 0, "high": 1}, "c") == [0.0]


def test_any_correct_repairs_what_is_not_monotone() -> None:
    # behind a nothing came out right, behind ab something did: so a was right too
    tree = build([path("abc", 0), path("ax", 0, 1), path("abx", 1, 2)])
    assert along(tree, "any_correct", "abc") == [1.0, 1.0, 0.0]
    assert along(tree, {"use": "any_correct", "repair": False}, "abc") == [0.0, 1.0, 0.0]


def test_distance_gives_the_published_values() -> None:
    # a right answer of four steps; behind its second step a wrong one, whose m is 3: to go from there
    tree = build([path("abcd", 1), path("abx", 0), path("abxy", 0), path("q", 0)])
    assert along(tree, "distance", "abcd") == [0.25, 0.5, 0.75, 1.0]
    assert along(tree, "distance", "abxy") == [0.25, 0.5, round(1 / 3, 12), round(1 / 3 - 2 / 9, 12)]
    assert along(tree, "distance", "q") == [0.0]  # max(0, 0 - 1/5)
    assert Distance().label(tree)[0] == 0
    # of two right answers the nearer one counts
    assert along(build([path("abcd", 1), path("abz", 1)]), "distance", "ab") == [round(1 / 3, 12), round(2 / 3, 12)]


def test_distance_without_any_right_answer_is_nothing_and_unknown_branches_are_skipped() -> None:
    assert along(build([path("ab", 0), path("ac")]), "distance", "ab") == [0.0, 0.0]
    tree = build([path("ab", 1), path("ac")])
    assert math.isnan(along(tree, "distance", "ac")[1])


def test_best_of_k_is_unbiased_from_k_samples_on() -> None:
    assert best_of(8, 2, 4) == pytest.approx(1 - 15 / 70)  # 1 - C(6,4)/C(8,4)
    assert best_of(3, 1, 4) == pytest.approx(1 - (2 / 3) ** 4)  # too few samples: the plug-in
    assert best_of(4, 0, 4) == 0
    assert best_of(4, 1, 4) == 1
    assert math.isnan(best_of(0, 0, 4))
    # unbiased: over all draws of n = 6 from success rate .3 its mean is 1 - .7^4, the plug-in's is lower
    rate, n, k = 0.3, 6, 4
    weight = [math.comb(n, s) * rate**s * (1 - rate) ** (n - s) for s in range(n + 1)]
    assert sum(w * best_of(n, s, k) for s, w in enumerate(weight)) == pytest.approx(1 - 0.7**4, abs=1e-12)
    assert sum(w * (1 - (1 - s / n) ** k) for s, w in enumerate(weight)) < 1 - 0.7**4 - 0.01


def test_prover_progress_is_the_difference_to_the_parent() -> None:
    # root: 4 samples, 1 right -> 1 of 2 best: 1 - C(3,2)/C(4,2) = .5; a: 2 of them, 1 right -> 1 - C(1,2)/C(2,2) = 1
    tree = build([path("ab", 1), path("ac", 0), path("d", 0), path("e", 0)])
    rule = {"use": "prover_progress", "k": 2, "alpha": 3.0}
    assert along(tree, rule | {"gives": "prover"}, "a") == [1.0]
    assert along(tree, rule | {"gives": "advantage"}, "a") == [0.5]
    assert along(tree, rule, "a") == [0.5 + 3 * 0.5]
    assert along(tree, rule | {"gives": "advantage"}, "d") == [-0.5]
    assert math.isnan(label(tree, rule | {"gives": "advantage"})[0])
    with pytest.raises(ConfigError, match="k must be at least 1"):
        label(tree, {"use": "prover_progress", "k": 0})


def test_the_visits_of_a_search_and_its_failures() -> None:
    builder = Builder()
    builder.add(path("ab", 1))
    builder.add(path("ac", 0))
    builder.mark("ad", Facts(stop="length"))
    builder.mark("e", Facts(q=0.3, visits=7))
    tree = builder.tree()
    assert along(tree, "visit_q", "ab") == [round(-1 / 3, 12), 1.0]  # (1 - 1 - 1) / 3
    assert along(tree, "visit_q", "ad")[1] == -1
    assert along(tree, "visit_q", "e") == [0.3]
    assert along(tree, {"use": "visit_q", "low": 0, "high": 1}, "ab") == [round(1 / 3, 12), 1.0]


def test_a_parent_is_worth_the_mean_of_its_children() -> None:
    # the draft a scored .1 itself; its reflections score .9 and .5 (mean of .2 and .8)
    tree = build([path("a", 0.1), path("ab", 0.9), path("acd", 0.2), path("ace", 0.8), path("af")])
    assert along(tree, "children_mean", "acd") == [0.7, 0.5, 0.2]
    assert along(build([path("a", 0.1), path("ab")]), "children_mean", "a") == [0.1]


def test_a_plan_is_worth_the_accuracy_below_it() -> None:
    tree = build([path(steps, outcome) for steps, outcome in (("Aw", 1), ("Ax", 0), ("Ay", 1), ("Az", 1), ("Bz", 0))])
    assert along(tree, "plan", "Aw") == [0.75, 0.75]
    assert along(tree, "plan", "Bz") == [0.0, 0.0]
    assert math.isnan(label(tree, "plan")[0])
    # the published reward: plan + outcome + .1 format
    outcome = np.array([1, 0, 1, 1])
    assert (along(tree, "plan", "A")[0] + outcome + 0.1).tolist() == [1.85, 0.85, 1.85, 1.85]


@pytest.mark.parametrize("name", plugins.BUILT_IN["tree_labels"])
def test_labels_do_not_depend_on_the_order_of_completions(name: str) -> None:
    few = [*ROLLOUTS[:3], path("abx ", 1, 2), ROLLOUTS[6]]
    first = build(few)
    values = label(first, name)
    for order in permutations(few):
        tree = build(order)
        assert tree.nodes == first.nodes
        np.testing.assert_array_equal(label(tree, name), values)


@pytest.mark.parametrize("name", plugins.BUILT_IN["tree_labels"])
def test_a_tree_of_one_path_is_the_sequence(name: str) -> None:
    tree = build([path("abc", 1)])
    want = [1 / 3, 2 / 3, 1.0] if name == "distance" else [1.0, 1.0, 1.0]
    assert along(tree, name, "abc") == [round(value, 12) for value in want]
    assert tree.walk("abc") == (1, 2, 3)
    assert tree.steps(3) == ("a", "b", "c")


def test_equal_prefixes_are_one_node_whatever_blanks_stand_around_them() -> None:
    tree = build([Path(steps=("one\n", "two")), Path(steps=("one", "\n\nthree")), Path(steps=("one",), outcome=1.0)])
    assert len(tree) == 4
    assert tree.nodes[1].paths == 3
    assert tree.nodes[1].ends == (1.0,)
    assert tree.steps(3) == ("one\n", "two")  # never stuck together
    assert [tree.nodes[node].step for node in tree.nodes[1].children] == ["\n\nthree", "two"]


@pytest.mark.parametrize(("steps", "start"), [("", 0), ("ab", 3), ("ab", -1)])
def test_what_is_no_path_is_refused(steps: str, start: int) -> None:
    with pytest.raises(DataError, match="is no path"):
        build([path(steps, 1, start)])


def test_unknown_rules_and_options_are_named() -> None:
    tree = build([path("a", 1)])
    with pytest.raises(UsageError, match="did you mean 'mean'"):
        label(tree, "meen")
    with pytest.raises(ConfigError, match="rule mean: unknown key 'treshold'"):
        label(tree, {"use": "mean", "treshold": 1})


def test_deep_trees_are_no_matter_of_recursion() -> None:
    tree = build([Path(steps=tuple(map(str, range(5000))), outcome=1.0)])
    assert label(tree, "distance")[-1] == pytest.approx(1)


def test_the_value_of_an_action_is_the_searchs_own_else_reward_and_value_else_the_mean() -> None:
    builder = Builder()
    builder.mark("a", Facts(q=0.5))
    builder.mark("b", Facts(reward=1.0, value=0.5))
    builder.mark("c", Facts(value=0.5))
    assert action_values(builder.tree(), gamma=0.5)[1:].tolist() == [0.5, 1.25, 0.25]
    assert action_values(build(ROLLOUTS))[1] == 0.5


def test_a_wrong_draft_is_marked_before_its_first_bad_step() -> None:
    tree = build([Path(steps=("1. ", "2. ", "3!"), outcome=0), Path(steps=("1. ", "two. ", "3. "), outcome=1)])
    [one] = refinements(tree)
    assert one.draft == "1. [BAD] 2. 3!"
    assert one.at == 1
    assert tree.steps(one.right) == ("1. ", "two. ", "3. ")
    assert refinements(build([path("ab", 0), path("cd", 0)])) == []  # nothing says where it went wrong
    [other] = refinements(build([path("ab", 0), path("cd", 1), path("c", 1)]))  # wrong from the start
    assert other.draft == "[BAD] ab"
    assert other.at == 0


def test_prompts_that_vary_and_beginnings_of_the_best_answer() -> None:
    starts = Starts()
    assert not starts.varied([1, 1, 1])
    assert not starts.varied([0.5, 0.58])
    assert starts.varied([0.5, 0.62])
    assert not starts.varied([1, NAN])
    text = "a\nb\nc\nd\ne"
    for seed in range(20):
        cut = starts.prefixes([text, "x"], [0.95, 0.2], seed=seed)
        assert len(cut) == 3
        assert all(text.startswith(one) and one != text for one in cut)
    assert starts.prefixes([text], [0.89]) == []
    assert starts.prefixes(["one line"], [1.0]) == []
    # earlier lines are drawn more often: with decay .5 the first twice as often as the second
    steep = Starts(decay=0.5, share=0.2)
    first = sum(steep.prefixes([text], [1.0], seed=seed) == ["a\n"] for seed in range(600))
    assert 0.45 < first / 600 < 0.62  # 8/15
