"""The denoising methods side by side: each learns a reward from noisy pairs and says what it thought of every label.

All methods train the same small head on the same frozen features; only what they do about wrong labels differs.

    clean            the labels before they were turned around: the ceiling, unknown outside the laboratory
    standard         Bradley-Terry on all pairs: the floor to beat
    ensemble, wco, uwo   two standard heads: mean, minimum, mean less variance
    label_smoothing, robust   cDPO and rDPO losses with the noise prior
    peer, self, mean     two heads select pairs (CRM): by the other's, their own, both margins; global scope
    peer_batch       the paper's selection within every batch
    curriculum, peer_curriculum   two heads that walk their pairs from easy to hard, without and with peer selection
    cross_fit, confident, gap, upo_*   filters: a head trained anew on what they keep

`prior` is the share of wrong labels that a method is told.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rmkit.heads.pair_estimator import EstimatorConfig, cross_fitted_uncertainty
from rmkit.heads.stacked import StackedHeads, Table, score, score_margins
from rmkit.heads.stacked_training import HeadConfig, fit_heads
from rmkit.reliability.confident_learning import confident_filter
from rmkit.reliability.crm import collaborate
from rmkit.reliability.cross_fit import cross_fitted_margins
from rmkit.reliability.ensemble import combine, reward_scale
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.reliability.mpo import split_by_gap
from rmkit.reliability.peer_review import ReviewConfig
from rmkit.reliability.uncertainty import Uncertainty
from rmkit.reliability.upo import Selector, UpoConfig, select_certain

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """What a method is given: noisy training pairs, test pairs, the noise prior and a seed. Labels of `test` are right.

    `clean` are the training pairs before their labels were turned around; only the ceiling may look. A task equals
    itself alone.
    """

    train: FeaturePairs
    clean: FeaturePairs
    test: FeaturePairs
    prior: float
    head: HeadConfig
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """`test_margin` [test pairs] of the learned reward; `weight` and `margin` [train pairs] where the method has them.

    `margin_by_epoch` [E, train pairs] are margins of the labeled order after each epoch.
    """

    test_margin: Floats
    weight: Floats | None = None
    margin: Floats | None = None
    margin_by_epoch: NDArray[np.float32] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def standard(task: Task) -> Outcome:
    by_epoch: list[NDArray[np.float32]] = []
    table = Table(task.train)
    heads = fit_heads(
        task.train,
        task.head,
        seeds=(2 * task.seed,),
        after_epoch=lambda _, now: by_epoch.append(score_margins(now, table)[0]),
    )
    return Outcome(_margin(heads, task.test), margin=_margin(heads, task.train), margin_by_epoch=np.stack(by_epoch))


def clean(task: Task) -> Outcome:
    return Outcome(_margin(fit_heads(task.clean, task.head, seeds=(2 * task.seed,)), task.test))


def combined(task: Task, how: str) -> Outcome:
    """Two heads that differ in their seeds, combined reward by reward."""
    heads = fit_heads(task.train, task.head, seeds=(2 * task.seed, 2 * task.seed + 1))
    scale = reward_scale(np.concatenate(score(heads, Table(task.train)), axis=1))
    chosen, rejected = (
        combine(scale.standardized(reward), how=how)  # type: ignore[arg-type]
        for reward in score(heads, Table(task.test))
    )
    return Outcome(chosen - rejected, facts={"disparity": disparity(score_margins(heads, Table(task.test)))})


def disparity(margin_2n: NDArray[np.floating]) -> float:
    """How far two models are apart: mean |z_A - z_B| of their margins over their own root mean square; 0: they agree,
    2 sqrt(1 / pi) = 1.13: as two independent normal ones."""
    margin = np.asarray(margin_2n, dtype=np.float64)
    scaled = margin / np.sqrt(np.mean(margin**2, axis=1, keepdims=True))
    return float(np.mean(np.abs(scaled[0] - scaled[1])))


def with_loss(task: Task, loss: str) -> Outcome:
    """Bradley-Terry's robust relatives; with a prior of 0 they are Bradley-Terry."""
    head = replace(task.head, loss=loss, loss_noise=task.prior)  # type: ignore[arg-type]
    return Outcome(_margin(fit_heads(task.train, head, seeds=(2 * task.seed,)), task.test))


def reviewed(task: Task, *, noise: float | None = None, **review: str | bool) -> Outcome:
    """`noise` in place of the task's prior: with 0 nobody selects."""
    result = collaborate(
        task.train,
        noise=task.prior if noise is None else noise,
        review=ReviewConfig(**review),  # type: ignore[arg-type]
        head=task.head,
        seed=task.seed,
    )
    margin = result.audit.margin.mean(axis=1)
    apart = disparity(score_margins(result.heads, Table(task.test)))
    weight = None if noise == 0 else result.verdicts.weight
    return Outcome(result.margin(task.test), weight, margin[-1].astype(np.float64), margin, {"disparity": apart})


@functools.lru_cache(maxsize=1)
def out_of_fold(task: Task) -> Floats:
    """Cross-fitted margins, which several methods of one cell share."""
    return cross_fitted_margins(task.train, head=task.head, seed=task.seed)


@functools.lru_cache(maxsize=1)
def estimated(task: Task) -> Uncertainty:
    """Passes of cross-fitted dropout estimators."""
    groups = task.train.rows[:, 0].tolist()
    like = EstimatorConfig(hidden=task.head.hidden, lr=task.head.lr, weight_decay=task.head.weight_decay)
    return cross_fitted_uncertainty(task.train, groups, config=like, seed=task.seed)


def cross_fitted(task: Task) -> Outcome:
    """The pairs whose cross-fitted margin is positive."""
    margin = out_of_fold(task)
    return trained_on(task, (margin > 0).astype(np.float64), margin)


def confident(task: Task) -> Outcome:
    margin = out_of_fold(task)
    sides = np.random.default_rng(task.seed).random(len(task.train)) < 0.5  # the stored order says nothing
    return trained_on(task, confident_filter(task.train.ids, margin, first_preferred=sides).weight, margin)


def by_gap(task: Task) -> Outcome:
    """The pairs with the larger half of the gaps but the suspected mislabels; the rest is left out."""
    margin = out_of_fold(task)
    return trained_on(task, split_by_gap(task.train.ids, margin).weight, margin)


def certain(task: Task, selector: Selector) -> Outcome:
    """UPO's filter: the estimator agrees, and the pair is in the better half by the selector."""
    margin = out_of_fold(task)
    chosen = UpoConfig(selector=selector)
    result = select_certain(task.train.ids, estimated(task), margin=margin, config=chosen, seed=task.seed)
    return trained_on(task, result.weight, margin)


def smoothed(task: Task) -> Outcome:
    """UPO's smoothed loss on all pairs: soft labels 1 - clip(1 - mean p, 0, 1/2)."""
    result = select_certain(task.train.ids, estimated(task), margin=out_of_fold(task), seed=task.seed)
    pairs = replace(task.train, soft_label=result.soft_label)
    return Outcome(_margin(fit_heads(pairs, task.head, seeds=(2 * task.seed,)), task.test))


def trained_on(task: Task, weight: Floats, margin: Floats) -> Outcome:
    """A standard head trained anew on the pairs that a filter kept."""
    inputs = task.train.weight
    pairs = task.train if inputs is None else replace(task.train, weight=weight * inputs)
    heads = fit_heads(pairs.take(weight > 0), task.head, seeds=(2 * task.seed,))
    return Outcome(_margin(heads, task.test), weight, margin)


def _margin(heads: StackedHeads, pairs: FeaturePairs) -> Floats:
    return np.asarray(score_margins(heads, Table(pairs))[0], dtype=np.float64)


METHODS: dict[str, Callable[[Task], Outcome]] = {
    "clean": clean,
    "standard": standard,
    "ensemble": lambda task: combined(task, "mean"),
    "wco": lambda task: combined(task, "wco"),
    "uwo": lambda task: combined(task, "uwo"),
    "label_smoothing": lambda task: with_loss(task, "label_smoothing"),
    "robust": lambda task: with_loss(task, "robust"),
    "peer": lambda task: reviewed(task, selector="peer"),
    "self": lambda task: reviewed(task, selector="self"),
    "mean": lambda task: reviewed(task, selector="mean"),
    "curriculum": lambda task: reviewed(task, noise=0.0, selector="peer", curriculum=True),
    "peer_curriculum": lambda task: reviewed(task, selector="peer", curriculum=True),
    "peer_batch": lambda task: reviewed(task, selector="peer", scope="batch"),
    "cross_fit": cross_fitted,
    "confident": confident,
    "gap": by_gap,
    "upo_smoothed": smoothed,
    "upo_bald": lambda task: certain(task, "bald"),
    "upo_mean_p": lambda task: certain(task, "mean_p"),
    "upo_margin": lambda task: certain(task, "margin"),
}


def available() -> list[str]:
    """The methods whose packages are installed: all but `confident` where cleanlab is absent."""
    return [name for name in METHODS if name != "confident" or importlib.util.find_spec("cleanlab") is not None]
