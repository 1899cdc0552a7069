"""UPO's candidates by hand."""

from __future__ import annotations

from typing import Any

import pytest

from data_pipelines.converters import NotConvertibleError
from data_pipelines.converters.upper_lower import Config, convert


def example(rewards: list[float], unit: str = "u") -> dict[str, Any]:
    scores = [{"response": at, "aspect": "rm", "value": value} for at, value in enumerate(rewards)]
    return {"unit": unit, "responses": list("pqrst")[: len(rewards)], "scores": scores, "ranks": None}


def test_winners_come_from_the_upper_and_losers_from_the_lower_half() -> None:
    found = list(convert(example([3.0, 1.0, 2.0, 1.5]), Config(share=1.0)))
    assert {(*one.responses, one.margin) for one in found} == {
        ("p", "s", 1.5), ("p", "q", 2.0), ("r", "s", 0.5), ("r", "q", 1.0)}  # fmt: skip
    assert found[0].p == [1.0, 0.0]
    first = next(one for one in found if one.margin == 1.0)
    assert (first.origins, first.scores) == ([2, 1], [(0, "rm", 2.0), (1, "rm", 1.0)])


def test_the_widest_pair_is_always_one_and_the_middle_of_an_odd_list_none() -> None:
    for unit in "abcdef":
        found = list(convert(example([3.0, 0.0, 2.0, 1.0, 1.5], unit), Config(share=0.25)))
        assert len(found) <= 2
        assert ("p", "q", 3.0) in {(*one.responses, one.margin) for one in found}
        assert not {"t"} & {text for one in found for text in one.responses}


def test_equal_or_missing_scores_give_nothing() -> None:
    with pytest.raises(NotConvertibleError, match="different scores"):
        list(convert(example([1.0, 1.0]), Config()))
    with pytest.raises(NotConvertibleError, match="not every"):
        list(convert(example([1.0]) | {"responses": ["p", "q"]}, Config()))
