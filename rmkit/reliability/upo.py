"""Uncertainty-enhanced selection of model-labeled pairs (UPO, steps 5 to 8).

The pairs' order comes from a reward model with margin m; an estimator gives `Uncertainty` (BALD B, mean p, vote).

    agreement  drop pairs whose majority vote contradicts the order
    select     of the survivors keep a share (half): the lowest B, the highest mean p or the largest m; or draw without
               replacement with weights (1 - B)^mu ("drawn", the printed rule), or with equal ones ("random")
    alpha      label smoothing of each pair: clip(1 - mean p, 0, 1/2), or 0.5 B / ln 2; soft label 1 - alpha
    mix        next round's new pairs: all selected ("easy") + 20% of a "hard" set, as large, drawn with weights B + 30%
               of the prompts' widest pairs (largest m of each); shuffled, first pair per prompt

What the agreement filter dropped is in none of these sets: a widest pair that is contradicted is not replaced.

Two printed rules are not followed: alpha = 1 / (1 + P) with P summing to one lies near 1 and trains reversed
preferences; mu as a factor cancels. Measured on frozen features: drawing by 1 - B changes nothing (B is about 0.01),
the lowest B half is much cleaner, and no cleaner than the half with the largest mean p or margin.

Sun et al., arXiv:2409.11212 and its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmkit.errors import ConfigError
from rmkit.reliability.label_weights import Flags, Floats, LabelWeights, check_ids, reasons
from rmkit.reliability.peer_review import ranks, tie_order
from rmkit.reliability.uncertainty import LARGEST_BALD, Uncertainty

Selector = Literal["bald", "mean_p", "margin", "drawn", "random"]
AlphaRule = Literal["mean_p", "bald", "none"]


@dataclass(frozen=True, kw_only=True)
class UpoConfig:
    """See the file's docstring; `keep_share` is the share of the pairs that pass the agreement filter."""

    agreement: bool = True
    selector: Selector = "mean_p"
    keep_share: float = 0.5
    mu: float = 1.0
    alpha: AlphaRule = "mean_p"

    def __post_init__(self) -> None:
        if not 0 < self.keep_share <= 1:
            raise ConfigError(f"keep_share: expected (0, 1], got {self.keep_share}")
        if self.mu < 0:
            raise ConfigError(f"mu: expected an exponent of at least 0, got {self.mu}")


def select_certain(
    ids: Sequence[str],
    uncertainty: Uncertainty,
    *,
    margin: ArrayLike,
    config: UpoConfig | None = None,
    seed: int = 0,
) -> LabelWeights:
    """Weight 1 for the selected pairs, 0 with a reason for the others; soft label 1 - alpha for all.

    `margin` [n] is the reward model's, in the order that the passes are about. NaN margins or passes are dropped.
    """
    config = config or UpoConfig()
    checked = check_ids(ids)
    margin_n = np.asarray(margin, dtype=np.float64)
    known = ~np.isnan(margin_n) & ~np.isnan(uncertainty.mean)
    agrees = uncertainty.vote >= 0.5 if config.agreement else np.ones(len(known), dtype=bool)
    there = known & agrees
    weight = sampling_weights(uncertainty.bald, config.mu)
    certain = _selection(there, uncertainty, margin_n, weight, tie_order(checked), config, seed)
    alpha = smoothing(uncertainty, config.alpha)
    why = f"not among the {config.keep_share:.0%} {_LIKED[config.selector]}"
    summary = {"margin or uncertainty missing": ~known, "the estimator's majority contradicts the order": ~agrees}
    return LabelWeights(
        method="uncertainty",
        ids=checked,
        weight=certain.astype(np.float64),
        reason=reasons(len(checked), summary | {why: ~certain}),
        soft_label=1 - np.where(np.isnan(alpha), 0.5, alpha),
        evidence={
            **uncertainty.evidence(),
            "margin": margin_n,
            "sampling_weight": weight,
            "alpha": alpha,
            "survived": there,
        },
        facts={
            "unscored": int((~known).sum()),
            "disagree": int((known & ~agrees).sum()),
            "selected": int(certain.sum()),
            "median_bald": float(np.median(uncertainty.bald[known])) if known.any() else None,
        },
    )


_LIKED = {
    "bald": "least uncertain",
    "mean_p": "most probable",
    "margin": "with the largest margin",
    "drawn": "drawn by certainty",
    "random": "drawn at random",
}


def _selection(
    there: Flags,
    uncertainty: Uncertainty,
    margin_n: Floats,
    weight: Floats,
    order: NDArray[np.int64],
    config: UpoConfig,
    seed: int,
) -> Flags:
    k = round(config.keep_share * int(there.sum()))
    if config.selector in ("drawn", "random"):
        return draw(np.where(there, weight if config.selector == "drawn" else 1.0, 0.0), k, seed=seed)
    liked = {"bald": -uncertainty.bald, "mean_p": uncertainty.mean, "margin": margin_n}[config.selector]
    rank = ranks(np.where(there, liked, np.nan), order)
    return (rank >= 0) & (rank < k)


def sampling_weights(bald: ArrayLike, mu: float = 1.0) -> Floats:
    """[n] (1 - B)^mu, not normalized; NaN where B is."""
    values: Floats = (1 - np.asarray(bald, dtype=np.float64)) ** mu
    return values


def draw(weight: ArrayLike, k: int, *, seed: int = 0) -> Flags:
    """[n] mask of k items drawn without replacement with these weights; all positive ones where they are fewer."""
    odds = np.nan_to_num(np.asarray(weight, dtype=np.float64), nan=0.0)
    k = min(k, int((odds > 0).sum()))
    mask = np.zeros(len(odds), dtype=bool)
    if k:
        mask[np.random.default_rng(seed).choice(len(odds), k, replace=False, p=odds / odds.sum())] = True
    return mask


def smoothing(uncertainty: Uncertainty, rule: AlphaRule = "mean_p") -> Floats:
    """[n] alpha in [0, 0.5]: how much of the loss goes to the reversed order."""
    match rule:
        case "mean_p":
            return np.clip(1 - uncertainty.mean, 0, 0.5)
        case "bald":
            return np.minimum(0.5 * uncertainty.bald / LARGEST_BALD, 0.5)
        case "none":
            return np.zeros(uncertainty.passes.shape[1])
    raise ConfigError(f"alpha: expected mean_p, bald or none, got {rule!r}")


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Beside the selected pairs: shares of the prompts' widest pairs and of a hard set as large as the selection."""

    largest_margin: float = 0.3
    hard: float = 0.2

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.largest_margin, self.hard)):
            raise ConfigError(f"mix shares must lie in [0, 1], got {self.largest_margin}, {self.hard}")


def mix(
    selected: LabelWeights, *, prompts: Sequence[Any], config: MixConfig | None = None, seed: int = 0
) -> LabelWeights:
    """The new pairs of the next round: the selected ones, some hard and some widest ones, one pair a prompt.

    `selected` comes from `select_certain`; `prompts` [n] name the pairs' prompts. Of several pairs of one prompt the
    first of a shuffle stays.
    """
    config = config or MixConfig()
    generator = np.random.default_rng(seed)
    easy = np.flatnonzero(selected.keep)
    margin, bald = (np.asarray(selected.evidence[name], dtype=np.float64) for name in ("margin", "bald"))
    survived = np.asarray(selected.evidence["survived"], dtype=bool)
    uncertain = np.flatnonzero(draw(np.where(survived, bald, 0.0), len(easy), seed=seed))
    hard = generator.permutation(uncertain)[: round(config.hard * len(easy))]
    wide = widest(margin, prompts)
    large = generator.permutation(wide[survived[wide]])
    large = large[: round(config.largest_margin * len(large))]
    pool = generator.permutation(np.unique(np.concatenate([easy, large, hard])))
    _, first = np.unique(np.asarray(prompts)[pool], return_index=True)
    kept = np.zeros(len(selected.ids), dtype=bool)
    kept[pool[first]] = True
    lost = np.isin(np.arange(len(kept)), pool) & ~kept
    why = [
        "" if here else "another pair of its prompt was drawn" if out else reason
        for here, out, reason in zip(kept, lost, selected.reason, strict=True)
    ]
    facts = {"selected": len(easy), "hard": len(hard), "widest": len(large), "trained_on": int(kept.sum())}
    return replace(selected, weight=kept.astype(np.float64), reason=tuple(why), facts={**selected.facts, **facts})


def widest(margin: ArrayLike, prompts: Sequence[Any]) -> NDArray[np.int64]:
    """Of each prompt the pair with the largest margin: its best reply against its worst. Prompts without any are left
    out; equal margins go to the first."""
    values = np.asarray(margin, dtype=np.float64)
    order = np.argsort(-values, kind="stable")  # NaN last
    order = order[~np.isnan(values[order])]
    _, first = np.unique(np.asarray(prompts)[order], return_index=True)
    return order[np.sort(first)]
