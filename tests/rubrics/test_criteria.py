from __future__ import annotations

import pytest

from rmkit.errors import DataError
from rubrics.criteria import Criterion, criterion_object, parse_criterion, parse_rubric, rubric_json


def test_a_criterion_survives_the_way_to_json_and_back() -> None:
    whole = Criterion(
        criterion="Is it short?", levels={1: "no", 5: "yes"}, weight=0.5, dimension="style", tag="v1", explanation="why"
    )
    assert parse_criterion(criterion_object(whole)) == whole
    assert parse_criterion({"question": "Is it short?", "skill": "style"}) == Criterion(
        criterion="Is it short?", dimension="style"
    )


def test_equal_rubrics_have_equal_text_whatever_the_order_of_keys() -> None:
    one = parse_rubric([{"criterion": "a", "levels": {"2": "y", "1": "x"}, "weight": 1}])
    other = parse_rubric([{"weight": 1.0, "levels": {"1": "x", "2": "y"}, "criterion": "a", "tag": None}])
    assert rubric_json(one) == rubric_json(other) == '[{"criterion":"a","levels":{"1":"x","2":"y"}}]'


def test_a_penalty_is_a_legal_weight() -> None:
    assert parse_criterion({"criterion": "a", "weight": -2}).weight == -2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("text", "not an object"),
        ({}, "needs a text"),
        ({"criterion": "  "}, "needs a text"),
        ({"criterion": "a", "color": 1}, "unknown field of a criterion: color"),
        ({"criterion": "a", "levels": ["x"]}, "levels"),
        ({"criterion": "a", "levels": {"high": "x"}}, "whole number"),
        ({"criterion": "a", "levels": {"1": ""}}, "no description"),
        ({"criterion": "a", "weight": "heavy"}, "finite number"),
        ({"criterion": "a", "weight": float("nan")}, "finite number"),
        ({"criterion": "a", "dimension": 3}, "texts"),
    ],
)
def test_what_is_no_criterion_is_refused(value: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_criterion(value)


def test_a_rubric_has_at_least_one_criterion() -> None:
    with pytest.raises(DataError, match="at least one"):
        parse_rubric([])
