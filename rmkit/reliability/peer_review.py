"""Peer review of training pairs: the selection rule of collaborative reward modeling, for any two scoring models.

Two models A and B are trained on the same labeled pairs; which pairs each learns from is decided by the margins m_A,
m_B of the labeled order, computed in eval mode and fp32. With noise prior eta, warm-up W and ramp T epochs (t from 0):

    keep ratio   R_t = 1 - eta * clip((t - W + 1) / T, 0, 1), 1 during warm-up
    global       before each epoch, A's pool is the top R n of all pairs by m_B and B's the top R n by m_A  (default)
    batch        of A's batch b the k = max(1, round(R |b|)) largest m_B are kept, of B's by m_A  (the paper's)
    curriculum   the pool is walked in order of (m_A + m_B) / 2, largest first, shuffled in windows of four batches
    selector     peer as above; self: each model's own margins; mean: both take (m_A + m_B) / 2

A high margin is a low Bradley-Terry loss. Ties are broken by id. Defaults W = 1, T = 2. An easy-to-hard sort of *all*
pairs with per-batch selection is refused: late batches are mostly wrong labels and the rule still keeps its share of
each; accuracy fell to 28.8% where standard training had 61.8%.

Collaborative Reward Modeling, arXiv:2505.10597. The paper published no code: warm-up, ramp, the global scope and the
curriculum inside the pool are ours. In our measurements `self` does as well as `peer` within the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit.errors import ConfigError
from rmkit.reliability.label_weights import Flags, Floats, check_noise

Scope = Literal["global", "batch"]
Selector = Literal["peer", "self", "mean"]
MODELS = ("A", "B")
NO_DIVERSITY = 0.98  # Jaccard of the two pools above which one model would do


@dataclass(frozen=True, kw_only=True)
class ReviewConfig:
    """How pairs are selected; see the file's docstring."""

    scope: Annotated[Scope, "select after every epoch among all pairs, or within every batch"] = "global"
    selector: Annotated[Selector, "whose margins decide what a model learns from"] = "peer"
    curriculum: Annotated[bool, "walk each pool from easy to hard; scope global only"] = False
    warmup_epochs: Annotated[
        float, "epochs on all pairs; with one epoch in scope batch, 0.15 is the first 15% of its steps"
    ] = 1
    ramp_epochs: Annotated[int, "epochs until the share kept is 1 - noise"] = 2
    window_batches: Annotated[int, "batches within which a curriculum is shuffled"] = 4

    def __post_init__(self) -> None:
        if self.curriculum and self.scope == "batch":
            raise ConfigError(
                "curriculum with scope 'batch' sorts all pairs and then keeps a share of every batch, so late batches "
                'train on wrong labels (measured to collapse below chance); use scope = "global" or no curriculum'
            )
        if self.warmup_epochs < 0 or self.ramp_epochs < 1 or self.window_batches < 1:
            raise ConfigError("warmup_epochs must be at least 0, ramp_epochs and window_batches at least 1")


@dataclass(frozen=True, slots=True)
class Selection:
    """What models A and B learn from: `kept` [2, n], `rank` [2, n] by the reviewer's margin from 0 (-1: margin NaN or
    not reviewed), and who reviewed each ("A", "B", "mean", or "all" where nobody selected)."""

    kept: Flags
    rank: NDArray[np.int64]
    selected_by: tuple[str, str]


def keep_ratio(epoch: float, noise: float, config: ReviewConfig) -> float:
    """R_t in (0.5, 1] for an epoch from 0. Fractional epochs serve runs that select within their only epoch."""
    done = (epoch - config.warmup_epochs + 1) / config.ramp_epochs
    return 1 - check_noise(noise) * min(max(done, 0.0), 1.0) if epoch >= config.warmup_epochs else 1.0


def reviewing(margin_2n: ArrayLike, selector: Selector) -> Floats:
    """[2, n] margins that decide for A and B, from their own ones; whose they are, `reviewers` tells."""
    margin = np.asarray(margin_2n, dtype=np.float64)
    match selector:
        case "peer":
            return margin[::-1].copy()
        case "self":
            return margin
        case "mean":
            return np.broadcast_to(margin.mean(axis=0), margin.shape)
    raise ConfigError(f"selector: expected peer, self or mean, got {selector!r}")


def reviewers(selector: Selector) -> tuple[str, str]:
    """Whose margins decide for A, and whose for B."""
    return {"peer": ("B", "A"), "self": ("A", "B"), "mean": ("mean", "mean")}[selector]


def select(margin_2n: ArrayLike, ratio: float, *, tie_order: NDArray[np.int64], config: ReviewConfig) -> Selection:
    """The pools of both models: of the n pairs with a margin, the top round(ratio * n) by the reviewer.

    `tie_order` [n] is each pair's place among the sorted ids. Pairs whose deciding margin is NaN are never kept.
    """
    deciding = reviewing(margin_2n, config.selector)
    rank = np.stack([ranks(one, tie_order) for one in deciding])
    usable = (rank >= 0).sum(axis=1)
    k = np.maximum(1, np.round(ratio * usable)).astype(np.int64)
    return Selection((rank >= 0) & (rank < k[:, None]), rank, reviewers(config.selector))


def everything(usable_n: Flags) -> Selection:
    """Warm-up: both models learn from every usable pair."""
    return Selection(np.stack([usable_n] * 2), np.full((2, len(usable_n)), -1), ("all", "all"))


def ranks(margin_n: ArrayLike, tie_order: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] rank from 0 of the largest margin on, ties by `tie_order`; -1 where the margin is NaN."""
    margin = np.asarray(margin_n, dtype=np.float64)
    order = np.lexsort((tie_order, -margin))  # NaN sorts last
    rank = np.empty(len(margin), dtype=np.int64)
    rank[order] = np.arange(len(margin))
    rank[np.isnan(margin)] = -1
    return rank


def tie_order(ids: Sequence[str]) -> NDArray[np.int64]:
    """[n] each id's place in the sorted ids."""
    place = np.empty(len(ids), dtype=np.int64)
    place[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return place


def keep_in_batch(
    deciding_KB: ArrayLike, ratio: float, *, tie_order_KB: NDArray[np.int64]
) -> tuple[Flags, NDArray[np.int64]]:
    """[K, B] the max(1, round(ratio * B)) largest deciding margins of each model's batch, and their ranks in it.

    NaN (a missing margin, or padding) is never kept and does not count in B.
    """
    rank = np.stack([ranks(one, order) for one, order in zip(np.asarray(deciding_KB), tie_order_KB, strict=True)])
    k = np.maximum(1, np.round(ratio * (rank >= 0).sum(axis=1)))
    return (rank >= 0) & (rank < k[:, None]), rank


def curriculum_order(
    mean_margin_n: Floats, pool: NDArray[np.int64], *, window: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The pool (indices) from easy to hard, shuffled within windows of `window` pairs."""
    easy_first = pool[np.argsort(-mean_margin_n[pool], kind="stable")]
    parts = [generator.permutation(easy_first[at : at + window]) for at in range(0, len(easy_first), window)]
    return np.concatenate(parts) if parts else easy_first


def jaccard(kept_2n: Flags) -> float:
    """|A and B| / |A or B| of the two pools; NaN where both are empty."""
    union = (kept_2n[0] | kept_2n[1]).sum()
    return float((kept_2n[0] & kept_2n[1]).sum() / union) if union else float("nan")
