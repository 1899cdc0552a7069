"""Spans onto tokens, judged steps, implicit token rewards, pairs of levels: numbers by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rmkit.errors import DataError
from rmkit.shaping import Group, chain
from rmkit.shaping.overlap import jaccard
from rmkit.shaping.pairs import cross_pair_loss, level_pairs
from rmkit.shaping.spans import (
    on_tokens,
    piece_offsets,
    sequence_value,
    step_spans,
    token_spans,
    turn_spans,
    wrong_shares,
)
from rmkit.shaping.token_rewards import adaptive_teacher, implicit_token_rewards
from rmkit.types import Span

# "So 2+2=4. Then 8." in two steps; the token ". T" touches both.
PIECES = ["So", " 2+2", "=4", ". T", "hen", " 8."]


def test_steps_on_tokens_that_do_not_end_where_steps_do() -> None:
    spans = step_spans([0.75, -2.0], [9, 17])
    assert spans == [Span(0.75, 0, 9), Span(-2.0, 9, 17)]
    offsets = [(0, 0), *piece_offsets(PIECES), (0, 0)]  # special tokens on both sides
    assert on_tokens(spans, offsets).tolist() == [0, 0, 0, 0, 0.75, 0, -2, 0]
    divided = on_tokens(spans, offsets, at="divided")
    third = -2 / 3
    assert divided == pytest.approx([0, 0.1875, 0.1875, 0.1875, 0.1875 + third, third, third, 0])
    assert on_tokens(spans, offsets, at="all").tolist() == [0, 0.75, 0.75, 0.75, -2, -2, -2, 0]
    assert sequence_value(spans) == -1.25 == pytest.approx(divided.sum())


def test_a_span_without_tokens_is_not_lost_and_a_missing_value_is_no_zero() -> None:
    """Behind the last token it goes to that; between tokens to the next one; special tokens have no characters."""
    assert on_tokens([Span(1.0, 0, 2), Span(0.5, 20, 30)], [(0, 2)]).tolist() == [1.5]
    assert on_tokens([Span(0.5, 2, 3)], [(0, 0), (0, 2), (3, 5), (0, 0)]).tolist() == [0, 0, 0.5, 0]
    assert on_tokens([Span(0.5, 0, 3)], [(0, 0), (0, 0)]).tolist() == [0, 0.5]
    with pytest.raises(DataError, match="characters 0 to 3 has no value"):
        on_tokens([Span(2.0, 3, 5), Span(None, 0, 3)], [(0, 3), (3, 5)])
    with pytest.raises(DataError, match="no tokens to put them at"):
        on_tokens([Span(2.0, 3, 5)], [])
    assert on_tokens([], []).tolist() == []
    assert sequence_value([Span(None, 0, 3), Span(2.0, 3, 5)]) is None


def test_the_bytes_of_one_character_share_the_value_of_its_step() -> None:
    """The emoji behind "ab" is three tokens, of which the last one alone completes a character."""
    offsets = [(0, 2), (2, 2), (2, 2), (2, 3), (3, 5), (5, 5)]
    assert on_tokens([Span(2.0, 0, 3), Span(-1.0, 3, 5)], offsets, at="all").tolist() == [2, 2, 2, 2, -1, 0]


def test_turns_and_tokens_as_spans() -> None:
    assert turn_spans([0.1, None], ["abc", "defgh"]) == [Span(0.1, 0, 3), Span(None, 5, 10)]
    assert token_spans([9.0, 0.5, -1.0], [(0, 0), (0, 2), (2, 5)]) == [Span(0.5, 0, 2), Span(-1.0, 2, 5)]
    with pytest.raises(DataError, match="2 step values for 1 step ends"):
        step_spans([1, 2], [4])
    with pytest.raises(DataError, match="must ascend"):
        step_spans([1, 2], [4, 4])


@pytest.mark.parametrize(
    ("k", "least", "precision", "recall"),
    [(1, 1.0, 0.571, 0.8), (4, 1.0, 0.988, 0.410), (4, 0.75, 0.909, 0.819), (4, 0.25, 0.360, 0.998)],
)
def test_agreement_of_critiques_has_the_precision_that_follows_from_their_errors(
    k: int, least: float, precision: float, recall: float
) -> None:
    """A quarter of the steps is wrong; each critique errs on a fifth, by itself. All 2^K verdicts are tried."""
    caught = {True: 0.0, False: 0.0}
    for verdicts in itertools.product([False, True], repeat=k):
        (share,) = wrong_shares([[0] if says else [] for says in verdicts], 1)
        assert share is not None
        for wrong in caught:
            if share >= least:
                caught[wrong] += math.prod(0.8 if says == wrong else 0.2 for says in verdicts)
    assert 0.25 * caught[True] / (0.25 * caught[True] + 0.75 * caught[False]) == pytest.approx(precision, abs=5e-4)
    assert caught[True] == pytest.approx(recall, abs=1e-3)


def test_capo_from_critiques_to_tokens() -> None:
    """Steps 0 and 2 are called wrong by both readable critiques; step 7 does not exist, one critique failed."""
    shares = wrong_shares([[0, 2, 7], None, [2, 0, 1]], 3)
    assert shares == [1.0, 0.5, 1.0]
    group = chain("capo").apply(Group.of(correct=[1.0], wrong_share=[shares]))
    spans = step_spans(group["reward"][0], [4, 6, 9])
    assert on_tokens(spans, [(0, 4), (4, 6), (6, 8), (8, 9)], at="all").tolist() == [1, 2, 1, 1]
    assert wrong_shares([None, None], 2) == [None, None]


def test_implicit_token_rewards_sum_to_the_sequence_reward() -> None:
    dpo, reverse = [-0.5, -2.0, -1.0], [-1.5, -0.5, -1.0]
    rewards = implicit_token_rewards(dpo, reverse, beta=0.1)
    assert rewards == pytest.approx([0.1, -0.15, 0.0])
    assert rewards.sum() == pytest.approx(0.1 * (sum(dpo) - sum(reverse)))
    with pytest.raises(DataError, match="one tokenizer"):
        implicit_token_rewards([0.1], [0.1, 0.2])


def test_the_adaptive_teacher_by_hand() -> None:
    """Probabilities (3/4, 1/4) against (1/2, 1/2): |dp| sums to 1/2, w = 5.001; the second position agrees."""
    dpo, reverse = np.log([[3.0, 1.0], [1.0, 4.0]]), np.log([[1.0, 1.0], [1.0, 4.0]])
    teacher = adaptive_teacher(dpo, reverse)
    assert teacher.weight == pytest.approx([5.001, 1e-3])
    assert teacher.logits[0] == pytest.approx([math.log(3) * 6.001, 0])
    assert teacher.logits[1] == pytest.approx(dpo[1])


def test_pairs_of_levels() -> None:
    pairs = level_pairs([1, 1, 2, 3])
    assert len(pairs) == 5
    assert sum(pair.weight for pair in pairs) == 11
    assert (2, 3, 1.0) in pairs
    assert level_pairs([2, None, 2, 3], ["a", "a", "b", "b"]) == [(2, 3, 1.0)]
    many = level_pairs([1] * 10 + [2] * 10)
    assert len(set(many)) == 64
    assert many == level_pairs([1] * 10 + [2] * 10)
    assert {pair.winner for pair in many} == set(range(10))


def test_pairs_across_representations_and_overlaps() -> None:
    assert cross_pair_loss([0.6, 0.2], [-0.5, 0.1, -0.2]) == pytest.approx(0.5574, abs=5e-5)
    assert jaccard({1, 2, 3}, {2, 3, 4, 5}) == 0.4
    assert jaccard([], []) == 0
