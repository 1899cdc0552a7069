"""A case before verifiers and a model of this home, its mix and its shaped rewards by hand."""

from __future__ import annotations

import math

import pytest

from labeling_ui.playground import Z, interval, judges, play
from rmkit.errors import DataError
from rmkit.types import Candidates, Completion, Message, Score


def _case(*replies: str, reference: str | None = None) -> Candidates:
    completions = tuple(Completion((Message("assistant", reply),)) for reply in replies)
    return Candidates((Message("user", "What is 2 + 2?"),), completions, reference=reference)


def test_judges_stand_side_by_side_and_their_mix_is_shaped(home: object) -> None:
    """Both give 1, 0, 1; by weights 1 and 0.5 the mix is 1.5, 0, 1.5, of mean 1 and variance 1/2."""
    case = _case("4", "5", "4", reference="4")
    played = play(case, ["exact_match", "answer"], weights={"exact_match": 1.0, "answer": 0.5}, transforms=["z_score"])
    assert [[score.value for score in one.scores] for one in played.columns] == [[1, 0, 1], [1, 0, 1]]
    assert [row.reward for row in played.mix] == [1.5, 0.0, 1.5]
    mean, std = 1.0, math.sqrt(((0.5**2) * 2 + 1.0**2) / 3)
    assert played.shaped == pytest.approx([(1.5 - mean) / std, (0 - mean) / std, (1.5 - mean) / std], abs=1e-3)


def test_a_judge_that_cannot_answer_is_a_reason_and_no_zero(home: object) -> None:
    played = play(_case("4", "5"), ["no-such-model", "exact_match"], weights={})
    assert "no-such-model" in played.failed
    assert [score.unscored is None for score in played.columns[0].scores] == [False, False]
    assert all(row.reward is None and "reference" in str(row.missing) for row in played.mix)
    with pytest.raises(DataError, match="column"):
        play(_case("4", "5", reference="4"), ["exact_match"], weights={}, transforms=["gdpo"])


def test_an_interval_is_said_only_where_the_model_says_how_sure_it_is() -> None:
    assert interval(Score(1.0, std=0.5)) == pytest.approx((1 - Z / 2, 1 + Z / 2))
    assert interval(Score(1.0)) is None
    assert interval(Score.failed("no")) is None


def test_what_runs_what_it_names_is_no_judge(home: object) -> None:
    assert "exact_match" in judges()
    assert "external" not in judges()
