"""Confident learning: labels that contradict a calibrated, cross-fitted classifier, found by cleanlab.

A pair's label is one of two classes, the side that it prefers in the stored order. From out-of-fold probabilities the
joint distribution of given and true labels is estimated (a pair counts for a class where its probability exceeds the
mean probability of the pairs that carry it), and as many pairs are dropped as it finds wrong, the least probable first.

Northcutt et al., arXiv:1911.00068. cleanlab is optional (extra `denoise`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import require
from rmkit.metrics.calibration import sigmoid
from rmkit.reliability.label_weights import LabelWeights, check_both_classes, check_enough, check_ids, reasons


def confident_filter(ids: Sequence[str], margin: ArrayLike, *, first_preferred: ArrayLike) -> LabelWeights:
    """Weight 0 for the pairs that cleanlab finds mislabeled, 1 for the others.

    `margin` [n] are out-of-fold margins of the labeled order (`cross_fitted_margins`); `first_preferred` [n] says
    which side the label prefers in the stored order. NaN margins are dropped. Raises DataError below 50 margins or
    where all labels prefer one side, MissingExtraError without cleanlab.
    """
    require("cleanlab", extra="denoise")
    from cleanlab.filter import find_label_issues

    checked = check_ids(ids)
    margin_n, first = np.asarray(margin, dtype=np.float64), np.asarray(first_preferred, dtype=bool)
    known = ~np.isnan(margin_n)
    check_enough(int(known.sum()), what="pairs with a margin")
    check_both_classes(first[known])
    right = sigmoid(margin_n)
    p_first = np.where(first, right, 1 - right)[known]
    wrong = np.zeros(len(checked), dtype=bool)
    wrong[known] = find_label_issues(
        first[known].astype(int), np.stack([1 - p_first, p_first], axis=1), filter_by="prune_by_noise_rate", n_jobs=1
    )
    summary = {"no margin": ~known, "cleanlab finds the label wrong": wrong}
    return LabelWeights(
        method="confident",
        ids=checked,
        weight=(known & ~wrong).astype(np.float64),
        reason=reasons(len(checked), summary),
        evidence={"margin": margin_n, "p_label": right},
        facts={"unscored": int((~known).sum()), "wrong_share": float(wrong[known].mean())},
    )
