"""Mixed preference optimization's split of pairs by reward gap: easy ones for DPO, hard ones for RL, mislabels apart.

    gap = |m|, easy where gap >= the quantile q of all gaps and m > 0
    suspect    m < 0 with a gap as large: the model is sure that the label is wrong; not easy
    hard       the others

q = 0.5 by default. The sign is kept as evidence. Simulated label accuracy: 0.958 in the easy half, 0.734 in the hard.
Gou & Nguyen, Mixed preference optimization, arXiv:2403.19443; the threshold rule is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import ConfigError
from rmkit.reliability.label_weights import LabelWeights, check_enough, check_ids, reasons


def split_by_gap(ids: Sequence[str], margin: ArrayLike, *, quantile: float = 0.5) -> LabelWeights:
    """Weight 1 for easy pairs, 0 for hard and suspected ones, with the reason; evidence `part` is easy | hard |
    suspect | unscored. NaN margins are unscored. Raises DataError below 50 scored pairs."""
    if not 0 <= quantile < 1:
        raise ConfigError(f"quantile: expected [0, 1), got {quantile}")
    margin_n = np.asarray(margin, dtype=np.float64)
    known = ~np.isnan(margin_n)
    check_enough(int(known.sum()), what="scored pairs")
    gap = np.abs(margin_n)
    threshold = float(np.quantile(gap[known], quantile))
    wide = known & (gap >= threshold)
    part = np.select([~known, wide & (margin_n > 0), wide & (margin_n < 0)], ["unscored", "easy", "suspect"], "hard")
    summary = {
        "no margin": part == "unscored",
        "suspected mislabel: the margin is large and against the label": part == "suspect",
        "hard: the rewards are close": part == "hard",
    }
    return LabelWeights(
        method="gap",
        ids=check_ids(ids),
        weight=(part == "easy").astype(np.float64),
        reason=reasons(len(margin_n), summary),
        evidence={"margin": margin_n, "gap": gap, "sign": np.sign(margin_n), "part": part},
        facts={"threshold": threshold, "unscored": int((~known).sum())}
        | {name: int((part == name).sum()) for name in ("easy", "hard", "suspect")},
    )
