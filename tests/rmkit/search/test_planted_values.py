"""Values learned from rollouts of a planted world, and what they are worth to a search (B2, B23, B26, B39).

A solution is four digits, each 1 with probability .4; it is right with three ones or more. What a beginning is worth
follows from the binomial distribution.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import spearmanr

from rmkit.search.select import SearchConfig, select
from rmkit.search.space import Extension, Scorer, State, StepScores
from rmkit.trees.rules import Named, label
from rmkit.trees.siblings.extremes import implicit_q
from rmkit.trees.tree import Path, build

LENGTH, NEEDED, CHANCE = 4, 3, 0.4


class Coins:
    """The policy."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def steps(self, states: Sequence[State], n: int) -> list[list[Extension]]:
        return [[self._step(state) for _ in range(n)] for state in states]

    def solutions(self, states: Sequence[State], n: int) -> list[list[State]]:
        return [[self.solution(state) for _ in range(n)] for state in states]

    def solution(self, state: State = ()) -> State:
        while len(state) < LENGTH:
            state = (*state, self._step(state).step)
        return state

    def _step(self, state: State) -> Extension:
        digit = "1" if self._random.random() < CHANCE else "0"
        if len(state) < LENGTH - 1:
            return Extension(f"{digit}\n", False)
        right = ones((*state, digit)) >= NEEDED
        return Extension(f"{digit} #### {'yes' if right else 'no'}", True)


def ones(state: State) -> int:
    return sum(step.startswith("1") for step in state)


def success(state: State) -> float:
    """The chance that the policy makes a right solution of it."""
    rest, missing = LENGTH - len(state), max(0, NEEDED - ones(state))
    return sum(comb(rest, n) * CHANCE**n * (1 - CHANCE) ** (rest - n) for n in range(missing, rest + 1))


def fitted(rule: Named, *, rollouts: int) -> Scorer:
    """A linear value of depth and ones, learned from the labels of a tree of rollouts, or offline by OREO's targets."""
    policy = Coins(seed=99)
    solutions = [policy.solution() for _ in range(rollouts)]
    outcomes = [float(ones(steps) >= NEEDED) for steps in solutions]
    if rule == "oreo":
        torch = pytest.importorskip("torch")
        from rmkit.losses.trajectory_value import trajectory_targets

        ratios = torch.zeros(rollouts, LENGTH)  # the policy is the reference
        values = trajectory_targets(torch.tensor(outcomes), ratios, beta=0.01).numpy().ravel()
        states: list[State] = [steps[:end] for steps in solutions for end in range(1, LENGTH + 1)]
    else:
        tree = build([Path(steps=steps, outcome=value) for steps, value in zip(solutions, outcomes, strict=True)])
        values = label(tree, rule)[1:]
        states = [tree.steps(node) for node in range(1, len(tree))]
    features = np.array([[1.0, len(state), ones(state)] for state in states])
    weights = np.linalg.lstsq(features, values, rcond=None)[0]

    def score(states: Sequence[State]) -> list[StepScores]:
        return [
            tuple(float(np.dot(weights, [1, end, ones(state[:end])])) for end in range(1, len(state) + 1))
            for state in states
        ]

    return score


@pytest.mark.parametrize("rule", [{"use": "mean", "low": 0, "high": 1}, {"use": "visit_q"}, "oreo"])
def test_a_fitted_value_orders_states_and_guides_a_beam(rule: Named) -> None:
    value = fitted(rule, rollouts=300)
    states = [tuple(digits) for n in range(1, LENGTH + 1) for digits in product(("0", "1"), repeat=n)]
    predicted = [scores[-1] for scores in value(states)]
    assert spearmanr(predicted, [success(state) for state in states]).statistic > 0.8

    def accuracy(config: SearchConfig) -> float:
        chosen = [select(Coins(seed), value, config).chosen for seed in range(100)]
        return sum(one is not None and one.answer == "yes" for one in chosen) / len(chosen)

    plain = success(())
    greedy = accuracy(SearchConfig(budget=1, aggregate="majority"))
    majority = accuracy(SearchConfig(budget=6, aggregate="majority"))
    guided = accuracy(SearchConfig(method="beam", budget=6, width=3, aggregate="last-max", max_steps=LENGTH))
    assert greedy == pytest.approx(plain, abs=0.12)
    assert guided > majority + 0.3
    assert guided > greedy + 0.3


def test_the_q_of_a_dpo_model_chooses_better_actions_than_the_base_policy_samples() -> None:
    """Actions of two tokens with planted utilities; the policy is DPO's optimum, with noise."""
    draw = np.random.default_rng(4)
    n, vocabulary, beta = 200, 6, 0.5
    chosen, drawn, likeliest = [], [], []
    for _ in range(n):
        reference = draw.normal(size=(2, vocabulary))
        utility = draw.normal(size=(2, vocabulary))
        policy = reference + utility / beta + draw.normal(0, 0.5, size=utility.shape)
        p = np.exp(reference) / np.exp(reference).sum(axis=1, keepdims=True)
        actions = [[int(draw.choice(vocabulary, p=p[at])) for at in range(2)] for _ in range(5)]
        worth = [float(utility[0, first] + utility[1, second]) for first, second in actions]
        q = [implicit_q(policy, reference, action) for action in actions]
        chosen.append(worth[int(np.argmax(q))])
        drawn.append(float(np.mean(worth)))
        likeliest.append(worth[int(np.argmax([implicit_q(reference, np.zeros_like(reference), a) for a in actions]))])
    gain = np.array(chosen) - np.array(drawn)
    assert gain.mean() > 1.0
    assert gain.mean() > 10 * gain.std() / np.sqrt(n)
    assert np.mean(chosen) > np.mean(likeliest) + 0.8  # it is the ratio to the reference that knows
