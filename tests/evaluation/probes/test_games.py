"""Preference games: hand-derived equilibria, linear programming as second opinion, cycles that scores cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from evaluation.probes.games import (
    bradley_terry_scores,
    exploitability,
    nash_weights,
    preference_matrix,
    solution,
    three_cycles,
)
from rmkit.errors import DataError, UsageError
from rmkit.types import Candidates, Comparison, Completion, Message, ModelInfo, Score

# rock-paper-scissors at 80%, and a fourth response that beats one of them and loses to two: Bradley-Terry has a best
CYCLE = np.array([[0.5, 0.8, 0.2, 0.6], [0.2, 0.5, 0.8, 0.55], [0.8, 0.2, 0.5, 0.55], [0.4, 0.45, 0.45, 0.5]])


def value_by_linear_program(preference: np.ndarray) -> float:
    """max over mixtures of the worst case: 1/2 for every preference game."""
    n = len(preference)
    found = linprog(
        np.r_[np.zeros(n), -1.0],
        A_ub=np.c_[-preference.T, np.ones(n)],
        b_ub=np.zeros(n),
        A_eq=[np.r_[np.ones(n), 0.0]],
        b_eq=[1.0],
        bounds=[(0, 1)] * n + [(None, None)],
    )
    return float(-found.fun)


def test_nash_is_hardly_exploitable_where_bradley_terrys_best_loses_four_times_in_five() -> None:
    found = solution(CYCLE)
    assert found["cycles"] == [[0, 1, 2]]
    assert found["exploitability"]["bradley_terry_best"] == pytest.approx(0.8)
    assert 0.5 <= found["exploitability"]["nash"] < 0.51
    assert value_by_linear_program(CYCLE) == pytest.approx(0.5)
    assert sum(found["nash"]) == pytest.approx(1)


def test_rock_paper_scissors_by_hand() -> None:
    rps = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    skewed = nash_weights(rps, towards=np.array([0.6, 0.3, 0.1]), tau=0.005, eta=0.1, steps=20_000)
    assert skewed == pytest.approx([1 / 3] * 3, abs=0.03)
    assert bradley_terry_scores(rps) == pytest.approx([0, 0, 0], abs=1e-9)
    assert exploitability(rps, np.eye(3)[0]) == pytest.approx(0.9)
    # against (1/2, 1/2, 0) the responses win (0.5 + 0.9) / 2, (0.1 + 0.5) / 2 and (0.9 + 0.1) / 2
    assert exploitability(rps, np.array([0.5, 0.5, 0.0])) == pytest.approx(0.7)


def test_scores_of_a_nearly_certain_order_are_the_likeliest() -> None:
    """Ten responses, each preferred to all behind it in all but one of a million: expected wins are the wins."""
    wins = np.full((10, 10), 0.5)
    wins[np.triu_indices(10, 1)], wins[np.tril_indices(10, -1)] = 1 - 1e-6, 1e-6
    scores = bradley_terry_scores(wins)
    expected = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
    assert expected.sum(axis=1) == pytest.approx(wins.sum(axis=1), abs=1e-7)


def test_where_scores_exist_there_is_no_cycle_and_all_agree_on_the_best() -> None:
    scores = np.array([0.3, -1.0, 1.2, -0.5])
    preference = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
    assert three_cycles(preference) == []
    assert bradley_terry_scores(preference) == pytest.approx(scores - scores.mean(), abs=1e-6)
    assert nash_weights(preference).argmax() == 2
    assert nash_weights(preference)[2] > 0.98


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_any_game_is_solved_to_within_its_regularization(n: int, seed: int) -> None:
    draw = np.random.default_rng(seed).random((n, n))
    preference = np.where(np.triu(np.ones((n, n)), 1) > 0, draw, 0)
    preference = preference + np.tril(1 - preference.T, -1) + np.eye(n) / 2
    weights = nash_weights(preference)
    # a best response gains at most tau * KL(best | mu) over the regularized equilibrium, and KL <= log n
    assert 0.5 - 1e-9 <= exploitability(preference, weights) <= 0.5 + 0.05 * np.log(n) + 1e-3


class Judge:
    """Prefers paper to rock, scissors to paper, rock to scissors; likes what it is shown first; fails at `fog`."""

    info = ModelInfo("judge", "generative", "probability", False, "f")

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        raise AssertionError("a pairwise model is not asked for scores")

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        pairs = [(item.completions[0].text, item.completions[1].text) for item in batch]
        self.asked += pairs
        return [Comparison.failed("no verdict") if "fog" in pair else Comparison(self.p(*pair)) for pair in pairs]

    @staticmethod
    def p(a: str, b: str) -> float:
        wins = {("paper", "rock"), ("scissors", "paper"), ("rock", "scissors")}
        return 0.9 if (a, b) in wins else 0.3


def pool(*texts: str) -> Candidates:
    return Candidates((Message("user", "?"),), tuple(Completion((Message("assistant", t),)) for t in texts))


def test_matrix_asks_both_orders_and_takes_position_out() -> None:
    judge = Judge()
    game = preference_matrix(judge, pool("rock", "paper", "scissors"))
    assert len(judge.asked) == 6
    assert game.preference == pytest.approx(np.array([[0.5, 0.2, 0.8], [0.8, 0.5, 0.2], [0.2, 0.8, 0.5]]))
    assert game.swap_gap == pytest.approx(0.2)
    assert three_cycles(game.preference) == [(0, 2, 1)]


def test_missing_comparisons_stay_missing() -> None:
    game = preference_matrix(Judge(), pool("rock", "fog", "paper"))
    assert game.unscored == ((0, 1), (1, 2))
    assert np.isnan(game.preference[0, 1])
    with pytest.raises(DataError, match="4 comparisons are missing"):
        nash_weights(game.preference)


def test_faults() -> None:
    with pytest.raises(DataError, match="must be 1"):
        nash_weights(np.array([[0.5, 0.7], [0.7, 0.5]]))
    with pytest.raises(DataError, match="square"):
        nash_weights(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="eta"):
        nash_weights(CYCLE, tau=3.0)
    with pytest.raises(DataError, match="without bound"):
        bradley_terry_scores(np.array([[0.5, 1.0], [0.0, 0.5]]))
