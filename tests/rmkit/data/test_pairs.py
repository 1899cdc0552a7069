"""Pairs by hand: which label wins, what is skipped and why, how lists are weighted."""

from __future__ import annotations

from typing import Any

import pytest

from rmkit.data.example import Example
from rmkit.data.pairs import Pair, read_pairs
from tests.exports import row


def pairs_of(*rows: dict[str, Any]) -> tuple[list[Pair], dict[str, int]]:
    return read_pairs([Example(one) for one in rows])


def test_a_pair_keeps_its_soft_label() -> None:
    [pair], skipped = pairs_of(row("q", ["a", "b"], p=[0.7, 0.3], family=4, subset="s", weight=2.0))
    assert (pair.p, pair.share, pair.weight, pair.family, pair.subset) == (0.7, 1.0, 2.0, 4, "s")
    assert pair.id == pair.example
    assert [completion.text for completion in pair.candidates.completions] == ["a", "b"]
    assert pair.candidates.prompt[-1].content == "q"
    assert skipped == {}


def test_p_that_does_not_sum_to_one_is_a_choice_rule() -> None:
    [pair], _ = pairs_of(row("q", ["a", "b"], p=[0.6, 0.2]))
    assert pair.p == pytest.approx(0.75)


def test_a_list_gives_all_pairs_and_counts_once() -> None:
    found, _ = pairs_of(row("q", ["a", "b", "c", "d"], kind="list", ranks=[1, 0, 1, None], weight=3.0))
    assert {(pair.i, pair.j): pair.p for pair in found} == {(0, 1): 0.0, (0, 2): 0.5, (1, 2): 1.0}
    assert sum(pair.share for pair in found) == pytest.approx(1)
    assert sum(pair.weight for pair in found) == pytest.approx(3)
    assert found[1].id == f"{found[1].example}:0:2"
    assert (found[2].first, found[2].second) == (found[0].second, found[1].second)


def test_ranks_come_before_scores_and_scores_before_one_hot_p() -> None:
    scores = [{"response": i, "aspect": "helpful", "value": value} for i, value in enumerate([3.0, 1.0, 2.0])]
    by_rank, _ = pairs_of(row("q", ["a", "b", "c"], kind="list", ranks=[2, 1, 0], scores=scores))
    by_score, _ = pairs_of(row("q", ["a", "b", "c"], kind="list", scores=scores, p=[0.0, 1.0, 0.0]))
    by_choice, _ = pairs_of(row("q", ["a", "b", "c"], kind="list", p=[0.0, 1.0, 0.0]))
    assert [pair.p for pair in by_rank] == [0, 0, 0]
    assert [pair.p for pair in by_score] == [1, 1, 0]
    assert {(pair.i, pair.j): pair.p for pair in by_choice} == {(0, 1): 0.0, (1, 2): 1.0}  # nothing said of 0 and 2


def test_only_aspects_that_all_responses_have_are_averaged() -> None:
    scores = [
        {"response": 0, "aspect": "a", "value": 1.0},
        {"response": 1, "aspect": "a", "value": 2.0},
        {"response": 0, "aspect": "b", "value": 9.0},
        {"response": 1, "aspect": "b", "value": None},
    ]
    [pair], _ = pairs_of(row("q", ["x", "y"], scores=scores))
    assert pair.p == 0


def test_what_cannot_be_compared_is_counted_by_reason() -> None:
    erased = row("q", ["a", "b"], p=[1.0, 0.0]) | {"prompt": None}
    part_erased = row("q", ["a", "b"], p=[1.0, 0.0])
    part_erased["responses"] = [part_erased["responses"][0], None]
    found, skipped = pairs_of(
        row("q", ["a"], kind="single"),
        row("q", [], kind="rubric"),
        row("q", ["a", "b"]),
        row("q", ["a", "b"], ranks=[None, None]),
        row("q", ["a", "b"], p=[0.0, 0.0]),
        erased,
        part_erased,
    )
    assert found == []
    assert skipped == {
        "nothing to compare (kind single)": 1,
        "nothing to compare (kind rubric)": 1,
        "no label that compares responses": 3,
        "text erased": 2,
    }


def test_a_null_weight_is_one_and_the_subset_falls_back_to_the_source() -> None:
    [pair], _ = pairs_of(row("q", ["a", "b"], p=[1.0, 0.0], weight=None, source="hh"))
    assert (pair.weight, pair.subset) == (1.0, "hh")
