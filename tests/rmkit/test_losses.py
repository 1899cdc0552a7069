"""Objectives against hand numbers, second implementations, finite differences and simulations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rmkit.errors import ConfigError  # noqa: E402
from rmkit.losses.binary_feedback import reaction  # noqa: E402
from rmkit.losses.bradley_terry import bradley_terry  # noqa: E402
from rmkit.losses.centering import centering  # noqa: E402
from rmkit.losses.focal import focal  # noqa: E402
from rmkit.losses.label_smoothing import label_smoothing  # noqa: E402
from rmkit.losses.margin import margin  # noqa: E402
from rmkit.losses.ordinal import cumulative_link, level_log_probs, ordered_cuts  # noqa: E402
from rmkit.losses.plackett_luce import plackett_luce  # noqa: E402
from rmkit.losses.pro import pro  # noqa: E402
from rmkit.losses.process import process, reduce_steps  # noqa: E402
from rmkit.losses.regression import regression  # noqa: E402
from rmkit.losses.robust import robust  # noqa: E402
from rmkit.losses.soft_label import soft_label  # noqa: E402
from rmkit.losses.ties import davidson, davidson_log_probs  # noqa: E402


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


CHOSEN, REJECTED = double(2.0, 0.0, -1.0), double(0.5, 0.0, 1.0)
GAPS = (1.5, 0.0, -2.0)


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (bradley_terry(CHOSEN, REJECTED), [-math.log(sig(gap)) for gap in GAPS]),
        (margin(CHOSEN, REJECTED, margin_B=double(1, 0, 0.5)), [-math.log(sig(g)) for g in (0.5, 0.0, -2.5)]),
        (
            soft_label(CHOSEN, REJECTED, p_first_B=double(0.8, 0.5, 0.0)),
            [-0.8 * math.log(sig(1.5)) - 0.2 * math.log(sig(-1.5)), math.log(2), -math.log(sig(2.0))],
        ),
        (
            label_smoothing(CHOSEN, REJECTED, noise=0.2),
            [-0.8 * math.log(sig(g)) - 0.2 * math.log(sig(-g)) for g in GAPS],
        ),
        (
            robust(CHOSEN, REJECTED, noise=0.2),
            [(-0.8 * math.log(sig(g)) + 0.2 * math.log(sig(-g))) / 0.6 for g in GAPS],
        ),
        (
            focal(CHOSEN, REJECTED, gamma=2.0),
            [-((2 - 2 * sig(1.5)) ** 2) * math.log(sig(1.5)), math.log(2), -math.log(sig(-2.0))],
        ),
    ],
    ids=["bradley_terry", "margin", "soft", "smoothing", "robust", "focal"],
)
def test_pair_losses_by_hand(loss: torch.Tensor, expected: list[float]) -> None:
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


def test_pair_losses_meet_bradley_terry_at_their_neutral_settings() -> None:
    plain = bradley_terry(CHOSEN, REJECTED)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    ranks = torch.tensor([[0, 1]] * 3)
    scores = torch.stack([CHOSEN, REJECTED], dim=1)
    for other in (
        margin(CHOSEN, REJECTED, margin_B=zero),
        soft_label(CHOSEN, REJECTED, p_first_B=one),
        label_smoothing(CHOSEN, REJECTED, noise=0.0),
        robust(CHOSEN, REJECTED, noise=0.0),
        focal(CHOSEN, REJECTED, gamma=0.0),
        plackett_luce(scores, rank_BN=ranks),
        pro(scores, reward_BN=table([1, 0], [1, 0], [1, 0])),
        davidson(CHOSEN, REJECTED, outcome_B3=table(*[[1, 0, 0]] * 3), log_nu=double(-700.0)[0]),
    ):
        torch.testing.assert_close(other, plain)


def test_extreme_gaps_stay_finite_and_linear() -> None:
    wide = torch.tensor([1e4, -1e4])
    loss = bradley_terry(wide, torch.zeros(2))
    assert loss.tolist() == [0.0, 1e4]
    assert robust(wide, torch.zeros(2)).isfinite().all()
    assert focal(wide, torch.zeros(2)).isfinite().all()


def test_robust_loss_is_unbiased_and_smoothing_is_not() -> None:
    gap, noise = double(0.7), 0.3
    clean = bradley_terry(gap, 0 * gap)

    def flipped(loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        return (1 - noise) * loss(gap, 0 * gap, noise=noise) + noise * loss(0 * gap, gap, noise=noise)

    torch.testing.assert_close(flipped(robust), clean)
    assert abs(float(flipped(label_smoothing) - clean)) > 0.1


@pytest.mark.parametrize("loss", [robust, label_smoothing])
@pytest.mark.parametrize("noise", [0.5, 0.9, -0.1])
def test_noise_of_half_or_more_is_refused(loss: Callable[..., torch.Tensor], noise: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.5"):
        loss(CHOSEN, REJECTED, noise=noise)


def test_davidson_by_hand() -> None:
    weights = [math.exp(1.0), 0.5 * math.exp(0.25), math.exp(-0.5)]
    expected = [math.log(weight / sum(weights)) for weight in weights]
    log_nu = double(math.log(0.5))[0]
    assert davidson_log_probs(double(1.0), double(-0.5), log_nu=log_nu)[0].tolist() == pytest.approx(expected)
    loss = davidson(double(1.0), double(-0.5), outcome_B3=table([0.5, 0.25, 0.25]), log_nu=log_nu)
    assert loss.item() == pytest.approx(-(0.5 * expected[0] + 0.25 * expected[1] + 0.25 * expected[2]))


def test_davidson_share_of_ties_between_equals() -> None:
    probs = davidson_log_probs(double(3.0), double(3.0), log_nu=double(math.log(0.8))[0]).exp()
    assert probs[0].tolist() == pytest.approx([1 / 2.8, 0.8 / 2.8, 1 / 2.8])


def test_centering_squares_the_sum_of_those_present() -> None:
    scores = table([1.0, 2.0, 5.0], [1.0, -1.0, 5.0])
    present = torch.tensor([[True, True, False]] * 2)
    assert centering(scores, present_BN=present).tolist() == [9.0, 0.0]
    assert centering(scores).tolist() == [64.0, 25.0]


def test_plackett_luce_by_hand_with_ties_and_unranked() -> None:
    s = [0.3, -0.2, 1.1, 9.0]
    e = [math.exp(x) for x in s]
    plain = -math.log(e[2] / (e[0] + e[1] + e[2])) - math.log(e[0] / (e[0] + e[1]))
    tied = -math.log(e[0] / (e[0] + e[1] + e[2])) - math.log(e[2] / (e[0] + e[1] + e[2]))
    loss = plackett_luce(table(s, s), rank_BN=torch.tensor([[1, 2, 0, -1], [0, 1, 0, -1]]))
    assert loss.tolist() == pytest.approx([plain, tied])


@settings(max_examples=30, deadline=None)
@given(scores=st.lists(st.floats(-4, 4), min_size=4, max_size=4))
def test_plackett_luce_probabilities_of_all_rankings_sum_to_one(scores: list[float]) -> None:
    orders = list(itertools.permutations(range(4)))
    loss = plackett_luce(table(*[scores] * len(orders)), rank_BN=torch.tensor(orders))
    assert math.fsum(torch.exp(-loss).tolist()) == pytest.approx(1.0)


def test_pro_golden() -> None:
    loss = pro(table([-0.5, -1.0, -1.5]), reward_BN=table([2, 1, 0]))
    assert loss.item() == pytest.approx(1.2327, abs=5e-5)


def test_pro_does_not_depend_on_the_order_given() -> None:
    scores, rewards = [0.4, -1.0, 2.0, 0.1], [1.0, 3.0, 0.0, 2.0]
    whole = pro(table(scores), reward_BN=table(rewards)).item()
    for order in itertools.permutations(range(4)):
        permuted = pro(table([scores[i] for i in order]), reward_BN=table([rewards[i] for i in order]))
        assert permuted.item() == pytest.approx(whole)


def test_pro_of_a_pair_is_bradley_terry_scaled_by_the_gap() -> None:
    loss = pro(table([0.7, 0.2]), reward_BN=table([3, 1]))
    assert loss.item() == pytest.approx(-math.log(sig(2 * 0.5)))


def test_pro_tie_is_constant_and_absent_responses_count_nothing() -> None:
    scores = table([0.7, -0.2]).requires_grad_()
    loss = pro(scores, reward_BN=table([1, 1]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert scores.grad.abs().max() == 0
    absent = pro(
        table([-0.5, -1.0, -1.5, 9.0]),
        reward_BN=table([2, 1, 0, 1]),
        present_BN=torch.tensor([[True, True, True, False]]),
    )
    assert absent.item() == pytest.approx(1.2327, abs=5e-5)


def test_regression_masks_missing_aspects() -> None:
    nan = math.nan
    scores = table([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).requires_grad_()
    loss = regression(scores, target_BA=table([0.0, nan, 1.0], [nan, nan, 3.0], [nan, nan, nan]))
    assert loss.tolist() == pytest.approx([(1 + 4) / 2, 0.0, 0.0])
    loss.sum().backward()
    assert scores.grad[:, 1].abs().max() == 0
    assert scores.grad.isfinite().all()
    weighted = regression(scores, target_BA=table(*[[0.0, nan, 1.0]] * 3), weight_A=double(3, 1, 1))
    assert weighted[0].item() == pytest.approx((3 * 1 + 4) / 4)


def test_cumulative_link_by_hand() -> None:
    cuts = table([-1.0, 0.5, 2.0])
    cumulative = [sig(cut - 0.3) for cut in (-1.0, 0.5, 2.0)]
    expected = [cumulative[0], cumulative[1] - cumulative[0], cumulative[2] - cumulative[1], 1 - cumulative[2]]
    probs = level_log_probs(table([0.3]), cut_AK=cuts).exp()
    assert probs[0, 0].tolist() == pytest.approx(expected)


def test_cumulative_link_masks_and_averages() -> None:
    cuts = table([-1.0, 0.5], [0.0, 1.0])
    scores = table([0.3, -0.4], [0.3, -0.4]).requires_grad_()
    loss = cumulative_link(scores, level_BA=torch.tensor([[1, -1], [-1, -1]]), cut_AK=cuts)
    assert loss.tolist() == pytest.approx([-math.log(sig(0.2) - sig(-1.3)), 0.0])
    loss.sum().backward()
    assert scores.grad[0, 1] == 0
    assert scores.grad[1].abs().max() == 0


def test_level_probabilities_are_exact_in_the_tails() -> None:
    far = level_log_probs(torch.tensor([[60.0]]), cut_AK=torch.tensor([[-1.0, 0.5]]))
    assert far.isfinite().all()
    assert far[0, 0, 1].item() == pytest.approx(0.5 - 60 + math.log1p(-math.exp(-1.5)), rel=1e-5)


@given(raw=st.lists(st.floats(-5, 5), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_cuts_are_ordered(raw: list[float]) -> None:
    assert (ordered_cuts(table(raw)).diff(dim=-1) > 0).all()


def test_reaction_recovers_the_population_logit_from_a_subsample() -> None:
    generator = torch.Generator().manual_seed(3)
    feature = torch.randn(200_000, generator=generator, dtype=torch.float64)
    liked = (torch.rand(200_000, generator=generator, dtype=torch.float64) < torch.sigmoid(feature - 4)).double()
    share = 9 * float(liked.sum()) / float((1 - liked).sum())
    kept = (liked == 1) | (torch.rand(200_000, generator=generator, dtype=torch.float64) < share)
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = reaction(weights[0] + weights[1] * feature[kept], liked_B=liked[kept], negatives_kept=share).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert share < 0.3
    assert weights[0].item() == pytest.approx(-4, abs=0.1)
    assert torch.sigmoid(weights[0] + weights[1] * feature).mean().item() == pytest.approx(
        float(liked.mean()), rel=0.05
    )
    with pytest.raises(ConfigError, match="share of negatives"):
        reaction(double(0.0), liked_B=double(1.0), negatives_kept=0.0)


def test_process_is_masked_after_the_first_error() -> None:
    logits = table([1.0, -0.5, 2.0], [0.3, 0.2, 0.1]).requires_grad_()
    nan = math.nan
    loss = process(logits, label_BS=table([1.0, 0.0, nan], [0.7, nan, nan]))
    first = (-math.log(sig(1.0)) - math.log(1 - sig(-0.5))) / 2
    second = -0.7 * math.log(sig(0.3)) - 0.3 * math.log(sig(-0.3))
    assert loss.tolist() == pytest.approx([first, second])
    loss.sum().backward()
    assert logits.grad[0, 2] == 0
    assert logits.grad[1, 1:].abs().max() == 0
    assert process(table([1.0]), label_BS=table([nan])).item() == 0


def test_step_reductions_by_hand() -> None:
    logits = double(2.0, -1.0, 0.5)
    p = [sig(x) for x in (2.0, -1.0, 0.5)]
    found = [reduce_steps(logits, how=how).item() for how in ("min", "last", "product", "mean")]
    assert found == pytest.approx([p[1], p[2], p[0] * p[1] * p[2], sum(p) / 3])


RANKS = torch.tensor([[1, 0, 2, -1], [0, 0, 1, 2]])
PAIRS = [
    bradley_terry,
    lambda a, b: margin(a, b, margin_B=double(0.3, 0.9)),
    lambda a, b: soft_label(a, b, p_first_B=double(0.3, 0.9)),
    lambda a, b: label_smoothing(a, b, noise=0.2),
    lambda a, b: robust(a, b, noise=0.2),
    focal,
    lambda a, b: davidson(a, b, outcome_B3=table([0.2, 0.3, 0.5], [1, 0, 0]), log_nu=a.sum() * 0.1),
    lambda a, b: reaction(a - b, liked_B=double(1, 0), negatives_kept=0.3),
]
GROUPS = [
    lambda s: plackett_luce(s, rank_BN=RANKS),
    lambda s: pro(s, reward_BN=table([1, 2, 0, 3], [1, 1, 0, 2]), present_BN=RANKS >= 0),
    lambda s: centering(s, present_BN=RANKS >= 0),
    lambda s: regression(s, target_BA=table([1, math.nan, 2, 3], [0, 1, math.nan, math.nan])),
    lambda s: cumulative_link(s, level_BA=RANKS, cut_AK=ordered_cuts(s[:, :2].repeat(2, 1))),
    lambda s: process(s, label_BS=table([1, 0, math.nan, math.nan], [0.4, 1, 1, 0])),
]


@pytest.mark.parametrize("loss", PAIRS, ids=range(len(PAIRS)))
def test_pair_gradients(loss: Callable[..., torch.Tensor]) -> None:
    chosen, rejected = double(0.4, -1.2).requires_grad_(), double(0.1, 0.8).requires_grad_()
    assert torch.autograd.gradcheck(loss, (chosen, rejected))


@pytest.mark.parametrize("loss", GROUPS, ids=range(len(GROUPS)))
def test_group_gradients(loss: Callable[..., torch.Tensor]) -> None:
    scores = table([0.4, -1.2, 0.7, 0.2], [1.0, 0.3, -0.6, 0.9]).requires_grad_()
    assert torch.autograd.gradcheck(loss, (scores,))
