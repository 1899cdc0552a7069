"""Rankings with ties and agreement with annotators, by hand and against brute force."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring import annotators, credit_table, nway
from evaluation.scoring.measures import measure_all
from evaluation.suites.items import Answer, Item
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite


def nway_item(*values: float | None) -> Item:
    return Item("a", "s", "a", {"values": list(values)})


def earned(values: tuple[float | None, ...], scores: tuple[float, ...]) -> dict[str, float]:
    return {credit.cell: credit.earned for credit in nway.credits(nway_item(*values), Answer("a", scores))}


def test_pairs_leave_gold_ties_out_and_give_model_ties_nothing() -> None:
    # Gold 2 > 1 = 1 > 0 decides five of six pairs; the model ties the first with the second and swaps the last two.
    got = earned((2, 1, 1, 0), (5, 5, 1, 3))
    # 2>1: tie, 0; 2>1': right; 2>0: right; 1>0: right; 1'>0: wrong.
    assert got == {"s/pairs": 3 / 5, "s/top": 1 / 2}


def test_top_splits_among_the_favorites_and_accepts_any_best() -> None:
    assert earned((1, 1, 0), (3, 2, 1))["s/top"] == 1  # either of the two best will do
    assert earned((1, 0, 0), (3, 3, 3))["s/top"] == pytest.approx(1 / 3)
    assert earned((1, 0, 0), (1, 3, 2))["s/top"] == 0


def test_no_decision_no_credit_and_unrated_replies_are_left_out() -> None:
    assert nway.credits(nway_item(1, 1, 1), Answer("a", (1, 2, 3))) == []
    assert earned((1, None, 0), (1, 9, 0)) == {"s/pairs": 1, "s/top": 1}


def test_unscored_reply_makes_the_item_unscored() -> None:
    credits = nway.credits(nway_item(1, 0), Answer("a", (math.nan, 0)))
    assert [credit.unscored for credit in credits] == [True, True]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=7))
def test_pairs_agree_with_brute_force(both: list[tuple[int, int]]) -> None:
    gold, scores = zip(*both, strict=True)
    decided = [(i, j) for i, j in combinations(range(len(gold)), 2) if gold[i] != gold[j]]
    got = earned(gold, scores)
    if not decided:
        assert got == {}
        return
    right = sum((gold[i] - gold[j]) * (scores[i] - scores[j]) > 0 for i, j in decided)
    assert got["s/pairs"] == pytest.approx(right / len(decided))
    top = [g for g, s in zip(gold, scores, strict=True) if s == max(scores)]
    assert got["s/top"] == pytest.approx(sum(g == max(gold) for g in top) / len(top))


def test_annotators_by_hand() -> None:
    item = Item("a", "s", "a", {"votes": ["a", "a", "b", "tie"]})
    cells = {c.cell: (c.earned, c.possible) for c in annotators.credits(item, Answer("a", (2, 1)))}
    assert cells == {"s/model": (2, 4), "s/human": (1, 6), "s/model_decided": (2, 3), "s/human_decided": (1, 3)}
    tied = {c.cell: (c.earned, c.possible) for c in annotators.credits(item, Answer("a", (1, 1)))}
    assert tied["s/model"] == (1, 4)


def test_single_vote_has_no_human_agreement() -> None:
    cells = [c.cell for c in annotators.credits(Item("a", "s", "a", {"votes": ["b"]}), Answer("a", (1, 2)))]
    assert cells == ["s/model", "s/model_decided"]


@pytest.mark.parametrize(
    ("file", "share"), [("pandalm", 0.92), ("tulu", 0.55), pytest.param("ukpconvarg", 0.52, marks=pytest.mark.slow)]
)
def test_human_ceiling_of_real_annotators_is_the_published_share(shared_data, file: str, share: float) -> None:  # type: ignore[no-untyped-def]
    suite = load_suite("annotators")
    items = load_items(suite, str(shared_data / f"annotators_{file}.jsonl.gz")).items
    answers = {item.id: Answer(item.id, (1.0, 0.0)) for item in items}
    result = measure_all(suite, credit_table(suite, items, answers), resamples=0)
    assert round(result["people with each other"].percent / 100, 2) == share
