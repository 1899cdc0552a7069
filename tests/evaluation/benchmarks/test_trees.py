"""The planted task says what it claims, and its experiments go the way they must."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.trees.confidence import confidence_experiment
from evaluation.benchmarks.trees.planted import Chain, ScriptedPolicy
from evaluation.benchmarks.trees.process_outcome import ARMS, measured
from evaluation.benchmarks.trees.run import noisy, progress_experiment, scripted_labels, search_experiment
from evaluation.benchmarks.trees.trained_policy import signed_chains, tokenizer
from evaluation.benchmarks.trees.verdicts import verdicts
from rmkit.chat.steps import step_texts
from rmkit.types import Candidates, Completion, Score

CHAIN = Chain(3, (("+", 4), ("*", 2), ("-", 5)), 0.3)


def test_the_first_wrong_step_is_known() -> None:
    assert (CHAIN.text, CHAIN.answer) == ("3+4*2-5", 9)  # 7, 14, 9
    assert CHAIN.first_error(["3+4=7", "7*2=4", "4-5=9", "#### 9"]) == -1
    assert CHAIN.first_error(["3+4=7", "7*2=5"]) == 1
    assert CHAIN.first_error(["3+4=7", "7*2=5", "5-5=9", "#### 9"]) == 1  # right in the end, by a second error
    assert CHAIN.first_error(["3+4=7", "7*2=4", "4-5=9", "#### 8"]) == 3


def test_the_policy_goes_on_from_what_it_wrote_and_errs_as_often_as_it_should() -> None:
    right, wrong = Chain(3, CHAIN.rest, 0.0), Chain(3, CHAIN.rest, 1.0)
    draw = random.Random(0)
    assert ScriptedPolicy.going_on(right, [], draw) == ["3+4=7", "7*2=4", "4-5=9", "#### 9"]
    assert ScriptedPolicy.going_on(right, ["3+4=8"], draw) == ["8*2=6", "6-5=1", "#### 1"]
    assert all(wrong.first_error(ScriptedPolicy.going_on(wrong, [], draw)) == 0 for _ in range(20))
    errors = sum(CHAIN.first_error(ScriptedPolicy.going_on(CHAIN, [], draw)) >= 0 for _ in range(2000))
    assert errors / 2000 == pytest.approx(1 - 0.7**3, abs=0.04)


def test_a_stronger_prover_spreads_advantages_and_leaves_progress() -> None:
    """The direction of the published simulation; the unbiased estimator is right where the plug-in is not."""
    results = progress_experiment(seed=3, trajectories=1500)
    assert [one.k for one in results] == [1, 4, 16, 64]
    assert sorted(one.variance for one in results) == [one.variance for one in results]
    assert sorted((one.correlation for one in results), reverse=True) == [one.correlation for one in results]
    four, sixteen = results[1], results[2]
    assert abs(four.bias) < 0.002 < abs(four.plug_in_bias)
    assert abs(sixteen.bias) < 0.01 < abs(sixteen.plug_in_bias)


def test_confidence_helps_where_visits_follow_what_is_better() -> None:
    result = confidence_experiment(visits=8, seeds=2, pairs=300)
    assert result.weighted > result.unweighted + 0.01
    assert 0.2 < result.wrong < 0.4


def test_scores_of_the_planted_scorer_belong_to_the_steps() -> None:
    score = noisy(CHAIN, 0.0, 0)
    [right, wrong] = score([("3+4=7\n", "7*2=4\n"), ("3+4=7\n", "7*2=5\n")])
    assert right == pytest.approx((0.8176, 0.8176), abs=1e-4)
    assert wrong == pytest.approx((0.8176, 0.1824), abs=1e-4)
    assert noisy(CHAIN, 1.0, 0)([("3+4=7\n",)]) == noisy(CHAIN, 1.0, 0)([("3+4=7\n",)])


def test_solutions_of_a_file_become_trees(tmp_path: Path) -> None:
    texts = [("a\nb\nA: 1", 1), ("a\nc\nA: 2", 0), ("d\ne\nA: 1", 1)]
    row = {"prompt": "?", "responses": [{"text": text, "score": score} for text, score in texts]}
    path = tmp_path / "nway.jsonl"
    path.write_text(json.dumps(row) + "\n")
    trees, rules = verdicts(path)
    assert (trees.nodes, trees.prompts_branching, trees.branching, trees.deepest_branching) == (9, 1, 1, 1)
    assert trees.pairs["on_path"] == 1
    mean = next(one for one in rules if one.rule == "mean")
    assert (mean.right, mean.wrong, mean.auc) == (0.875, 0.25, 1.0)  # a is worth .5


def test_steps_are_tokens_of_the_trained_policy_and_decode_to_the_very_text() -> None:
    pytest.importorskip("transformers")
    words = tokenizer()
    chain = Chain(3, (("+", 2), ("*", 3)), math.nan, 13)
    assert (chain.text, chain.answer) == ("3+2*3", 2)  # 5, 15
    solution = "3+2=5\n5*3=2\n#### 2"
    ids = words(solution, add_special_tokens=False)["input_ids"]
    assert words.convert_ids_to_tokens(ids) == ["3+2=5\n", "5*3=2\n", "####", " ", "2"]
    assert words.decode(ids) == solution
    problem = words(chain.text, add_special_tokens=False)["input_ids"]
    assert words.convert_ids_to_tokens(problem) == ["3", "+", "2", "*", "3"]
    assert len({one.text for one in signed_chains(90, seed=1)}) == 90


class Knowing:
    """A reward model that knows the first error of every solution, and overlooks those of products."""

    def __init__(self, question: Chain) -> None:
        self._question = question

    def score(self, items: Sequence[Candidates]) -> list[list[Score]]:
        return [[self._score(one) for one in item.completions] for item in items]

    def _score(self, completion: Completion) -> Score:
        steps = step_texts(completion)
        error = self._question.first_error(steps)
        seen = error >= 0 and "*" not in steps[error]
        values = tuple(0.2 if seen and at >= error else 0.7 for at in range(len(steps)))
        return Score(min(values), steps=values)


def test_what_a_model_chooses_and_where_it_sees_errors() -> None:
    question = Chain(3, (("+", 2), ("*", 3)), math.nan, 13)
    states = [
        ("3+2=6\n", "6*3=5\n", "#### 5"),  # seen at once
        ("3+2=5\n", "5*3=4\n", "#### 4"),  # overlooked
        ("3+2=5\n", "5*3=2\n", "#### 2"),
        ("3+2=5\n", "5*3=2\n", "#### 2"),
    ]
    model: Any = Knowing(question)
    result = measured(ARMS[0], model, [question], [states], seed=3, written=1.0, rows=2)
    assert (result.first, result.any_right, result.hits) == (0, 1, 0.5)
    assert result.accuracy["min-max"] == 0  # of equals the first: the one whose error it does not know
    assert result.accuracy["min-vote"] == result.accuracy["majority"] == 1
    # five wrong steps, three of them at .2: seven right ones at .7 win 21 comparisons and tie 14
    assert result.step_auc == pytest.approx((21 + 14 / 2) / 35)


@pytest.mark.slow
def test_experiments_on_labels_and_search_go_the_way_they_must() -> None:
    hits = {(one.rule, one.rollouts, one.adaptive): one for one in scripted_labels(40, seed=1)}
    assert hits["any_correct", 2, False].hits > hits["mean >= .5", 2, False].hits
    bisected, plain = hits["any_correct", 4, True], hits["any_correct", 4, False]
    assert bisected.continuations < plain.continuations / 2
    assert bisected.step_accuracy > plain.step_accuracy - 0.05
    searched, cells = search_experiment(9, seeds=[0, 1], noise=1.0, budgets=(1, 8))
    by = {(one.bin, one.method, one.budget): one.accuracy for one in searched}
    assert by["medium", "min-max", 8] >= by["medium", "min-max", 1]
    assert {cell["budget"] for cell in cells} == {1, 8}
