"""From the outputs of a micro-batch to one loss per row, by the configured objective.

Axes: K responses of all rows, A aspects, S steps, R steps of all responses, Q preferences of all rows, B rows, N
responses of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmkit.losses.binary_feedback import reaction
from rmkit.losses.bradley_terry import bradley_terry
from rmkit.losses.centering import centering
from rmkit.losses.focal import focal
from rmkit.losses.ipo import ipo
from rmkit.losses.label_smoothing import label_smoothing
from rmkit.losses.margin import margin
from rmkit.losses.ordinal import cumulative_link, ordered_cuts
from rmkit.losses.plackett_luce import plackett_luce
from rmkit.losses.pro import pro
from rmkit.losses.process import process
from rmkit.losses.regression import regression
from rmkit.losses.robust import robust
from rmkit.losses.soft_label import soft_label
from rmkit.losses.ties import davidson
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.config import RANKING, ExplicitConfig, ImplicitConfig
from rmkit.training.data import TrainingRow


def row_losses(
    score_K: Tensor,
    rows: Sequence[TrainingRow],
    config: ExplicitConfig,
    *,
    log_nu: Tensor | None = None,
    head: RatingHead | None = None,
    raw_cuts: Tensor | None = None,
    likelihood_B: Tensor | None = None,
) -> Tensor:
    """[B] weighted losses. `log_nu` is the learned tie parameter of the `ties` objective, `raw_cuts` [A, K] the learned
    thresholds of `ordinal`; `head` says what the outputs of the rating objectives mean, which are [K, A]. For `process`
    the outputs are [R], one per step. `likelihood_B` is the log-probability per token of each row's best response, for
    policies that learn it as well."""
    weight_B = score_K.new_tensor([row.weight for row in rows])
    if head is not None:
        return weight_B * _mean_of_rows(rated_losses(score_K, rows, config, head=head, raw_cuts=raw_cuts), rows)
    if config.objective == "process":
        return weight_B * _mean_of_rows(_step_losses(score_K, rows), rows)
    if config.objective in RANKING or config.centering:
        score_BN, present_BN = _table(score_K, rows)
    if config.objective in RANKING:
        loss_B = _ranking(score_BN, rows, config)
    else:
        loss_B = _pairwise(score_K, rows, config, log_nu)
    if config.centering:
        loss_B = loss_B + config.centering * centering(score_BN, present_BN=present_BN)
    if likelihood_B is not None:
        assert isinstance(config, ImplicitConfig)
        loss_B = loss_B - config.likelihood * likelihood_B
    return loss_B * weight_B


def rated_losses(
    output_KA: Tensor,
    rows: Sequence[TrainingRow],
    config: ExplicitConfig,
    *,
    head: RatingHead,
    raw_cuts: Tensor | None = None,
) -> Tensor:
    """[K] loss of every response: squared errors in standard deviations, log-likelihood of levels or of reactions."""
    output_KA = output_KA.reshape(-1, len(head.aspects))
    rating_KA = output_KA.new_tensor([ratings for row in rows for ratings in row.ratings])
    match head.kind:
        case "regression":
            target_KA = (rating_KA - output_KA.new_tensor(head.mean)) / output_KA.new_tensor(head.std)
            return regression(output_KA, target_BA=target_KA)
        case "ordinal":
            assert raw_cuts is not None
            return _ordinal(output_KA, rating_KA, head, raw_cuts)
        case "reaction":
            return reaction(output_KA[:, 0], liked_B=rating_KA[:, 0], negatives_kept=config.negatives_kept)


def _ordinal(output_KA: Tensor, rating_KA: Tensor, head: RatingHead, raw_cuts: Tensor) -> Tensor:
    """Aspect by aspect, for each has its own number of levels; a rating between levels counts as the nearest."""
    total_K = count_K = output_KA.new_zeros(len(output_KA))
    for a, levels in enumerate(head.levels):
        rated_K = ~rating_KA[:, a].isnan()
        distance_KL = (rating_KA[:, a, None].nan_to_num() - output_KA.new_tensor(levels)).abs()
        level_K = distance_KL.argmin(-1).masked_fill(~rated_K, -1)
        cut_AK = ordered_cuts(raw_cuts[a : a + 1, : len(levels) - 1])
        total_K = total_K + cumulative_link(output_KA[:, a : a + 1], level_BA=level_K[:, None], cut_AK=cut_AK)
        count_K = count_K + rated_K
    return total_K / count_K.clamp(min=1)


def _step_losses(logit_R: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
    """[K] mean over the labeled steps of every response."""
    labels = [torch.tensor(steps, device=logit_R.device) for row in rows for steps in row.step_labels]
    logits = torch.split_with_sizes(logit_R, [len(steps) for steps in labels])
    pad = torch.nn.utils.rnn.pad_sequence
    label_KS = pad(labels, batch_first=True, padding_value=float("nan"))
    return process(pad(list(logits), batch_first=True), label_BS=label_KS)


def _mean_of_rows(loss_K: Tensor, rows: Sequence[TrainingRow]) -> Tensor:
    """[B] mean over each row's responses."""
    return torch.stack([part.mean() for part in torch.split_with_sizes(loss_K, [len(row.ids) for row in rows])])


def _table(score_K: Tensor, rows: Sequence[TrainingRow]) -> tuple[Tensor, Tensor]:
    parts = torch.split_with_sizes(score_K, [len(row.ids) for row in rows])
    score_BN = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    count_B = torch.tensor([len(row.ids) for row in rows], device=score_K.device)
    return score_BN, torch.arange(score_BN.shape[1], device=score_K.device) < count_B[:, None]


def _ranking(score_BN: Tensor, rows: Sequence[TrainingRow], config: ExplicitConfig) -> Tensor:
    width = score_BN.shape[1]
    ranks = [[*row.ranks, *[-1] * (width - len(row.ranks))] for row in rows]
    rank_BN = torch.tensor(ranks, device=score_BN.device)
    if config.objective == "plackett_luce":
        return plackett_luce(score_BN, rank_BN=rank_BN)
    return pro(score_BN, reward_BN=-rank_BN.to(score_BN.dtype), present_BN=rank_BN >= 0)


def _pairwise(score_K: Tensor, rows: Sequence[TrainingRow], config: ExplicitConfig, log_nu: Tensor | None) -> Tensor:
    """[B] sums over each row's preferences, weighted by their shares."""
    starts, start = [], 0
    for row in rows:
        starts.append(start)
        start += len(row.ids)
    flat = [(number, row, one) for number, row in enumerate(rows) for one in row.preferences]
    first_Q = score_K[[starts[number] + one.i for number, _, one in flat]]
    second_Q = score_K[[starts[number] + one.j for number, _, one in flat]]
    p_Q = score_K.new_tensor([one.p for _, _, one in flat])
    margin_Q = score_K.new_tensor([config.margin_scale * row.margin for _, row, _ in flat])
    loss_Q = _pair_loss(first_Q, second_Q, p_Q=p_Q, margin_Q=margin_Q, config=config, log_nu=log_nu)
    share_Q = score_K.new_tensor([one.share for _, _, one in flat])
    owner_Q = torch.tensor([number for number, _, _ in flat], device=score_K.device)
    return score_K.new_zeros(len(rows)).index_add(0, owner_Q, loss_Q * share_Q)


def _pair_loss(
    first_Q: Tensor, second_Q: Tensor, *, p_Q: Tensor, margin_Q: Tensor, config: ExplicitConfig, log_nu: Tensor | None
) -> Tensor:
    chosen_Q, rejected_Q = first_Q.where(p_Q > 0.5, second_Q), second_Q.where(p_Q > 0.5, first_Q)
    match config.objective:
        case "bradley_terry" | "dpo":  # DPO is Bradley-Terry on implicit rewards
            return bradley_terry(chosen_Q, rejected_Q)
        case "margin":
            return margin(chosen_Q, rejected_Q, margin_B=margin_Q)
        case "soft_label":
            return soft_label(first_Q, second_Q, p_first_B=p_Q)
        case "ties":
            assert log_nu is not None
            tied_Q = 1 - (2 * p_Q - 1).abs()  # a share p of wins and no word on ties: the undecided part counts as tied
            outcome_Q3 = torch.stack([(2 * p_Q - 1).clamp(min=0), tied_Q, (1 - 2 * p_Q).clamp(min=0)], dim=-1)
            return davidson(first_Q, second_Q, outcome_B3=outcome_Q3, log_nu=log_nu)
        case "label_smoothing" | "cdpo":
            return label_smoothing(chosen_Q, rejected_Q, noise=config.label_noise)
        case "robust" | "rdpo":
            return robust(chosen_Q, rejected_Q, noise=config.label_noise)
        case "ipo":
            assert isinstance(config, ImplicitConfig)
            return ipo(chosen_Q, rejected_Q, beta=config.beta)
        case "focal":
            return focal(chosen_Q, rejected_Q, gamma=config.focal_gamma)
    raise AssertionError(config.objective)
