"""CREAM: how far two rankings of the same responses agree decides how firmly their labels are trusted.

For prompt j with N responses and the rewards J of the current and K of the previous model:

    tau_b  = sum_{i<i'} sign(dJ dK) / sqrt(pairs untied in J * pairs untied in K)      NaN where one is constant
    c_j    = (tau_b + 1) / 2
    C      = mean of the known c_j ("avg", the default), or c_j itself ("dyn"); the mean where c_j is missing
    pair   = best against worst response by the current rewards; none where all are equal
    label  = C: loss C sp(-m) + (1 - C) sp(m), label smoothing with a rate estimated from data

C below 1/2 would reverse labels, so it is clamped to [1/2, 1]. With N = 2 c_j is 0 or 1, hence "dyn" needs N >= 4.
Everything is keyed by the prompt's id. Rewards are given by the caller: sums of log-ratios over response tokens for the
current model, and the same (length-normalized where it is the first model) for the previous one.

Wang et al., arXiv:2410.12735. The published code breaks ties by position and misaligns ids after a skipped prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from rmkit.errors import DataError
from rmkit.reliability.label_weights import LabelWeights, check_ids, reasons

How = Literal["avg", "dyn"]
MIN_DYN = 4


@dataclass(frozen=True, slots=True)
class Consistency:
    """`verdicts` per prompt id: soft label C, weight 0 where there is no pair; `best` and `worst` [prompts] are the
    response positions of the pair, -1 where there is none; `mean` is the mean of the known c_j before clamping."""

    verdicts: LabelWeights
    best: tuple[int, ...]
    worst: tuple[int, ...]
    mean: float


def kendall_tau_b(first: ArrayLike, second: ArrayLike) -> float:
    """Rank agreement in [-1, 1] with ties; NaN where either is constant, shorter than two or not finite."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(f"two rankings of different lengths: {len(a)} and {len(b)} responses")
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(kendalltau(a, b).statistic)


def consistency(
    current: Mapping[str, Sequence[float]], previous: Mapping[str, Sequence[float]], *, how: How = "avg"
) -> Consistency:
    """Soft labels for the best-against-worst pairs of every prompt in `current`.

    Prompts that `previous` lacks take the mean. Raises DataError where no prompt can be compared, where a prompt's
    numbers of responses differ, or below four responses with "dyn".
    """
    ids = check_ids(list(current))
    if how == "dyn" and (short := [one for one in ids if len(current[one]) < MIN_DYN]):
        raise DataError(
            f"dyn needs at least {MIN_DYN} responses a prompt, {short[0]!r} has {len(current[short[0]])}; use avg"
        )
    tau = np.array([kendall_tau_b(current[one], previous[one]) if one in previous else np.nan for one in ids])
    known = ~np.isnan(tau)
    if not known.any():
        raise DataError("no prompt has two rankings to compare: every one is missing, constant or not finite")
    c = (tau + 1) / 2
    mean = float(c[known].mean())
    agreement = np.where(known & (how == "dyn"), c, mean)
    pairs = [_extremes(current[one]) for one in ids]
    paired = np.array([best >= 0 for best, _ in pairs])
    return Consistency(
        LabelWeights(
            method="consistency",
            ids=ids,
            weight=paired.astype(np.float64),
            reason=reasons(len(ids), {"all rewards are equal or missing: no pair": ~paired}),
            soft_label=np.clip(agreement, 0.5, 1.0),
            evidence={"tau": tau, "consistency": c, "agreement": agreement},
            facts={
                "how": how,
                "mean_consistency": mean,
                "without_tau": int((~known).sum()),
                "clamped": int((agreement < 0.5).sum()),
            },
        ),
        tuple(best for best, _ in pairs),
        tuple(worst for _, worst in pairs),
        mean,
    )


def _extremes(rewards: Sequence[float]) -> tuple[int, int]:
    """Positions of the largest and the smallest reward, (-1, -1) where they are equal or one is not finite."""
    values = np.asarray(rewards, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all() or values.max() == values.min():
        return -1, -1
    return int(values.argmax()), int(values.argmin())
