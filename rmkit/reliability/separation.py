"""How well margins tell right labels from wrong ones, where the truth is known (injected noise, gold items)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmkit.reliability.label_weights import Flags


def auc(margin: ArrayLike, clean: ArrayLike) -> float:
    """Probability that a right label has a larger margin than a wrong one, ties one half (Mann-Whitney); NaN margins
    are left out; NaN where either kind is absent."""
    margin_n, clean_n = np.asarray(margin, dtype=np.float64), np.asarray(clean, dtype=bool)
    known = ~np.isnan(margin_n)
    margin_n, clean_n = margin_n[known], clean_n[known]
    right, wrong = int(clean_n.sum()), int((~clean_n).sum())
    if not right or not wrong:
        return float("nan")
    _, place, counts = np.unique(margin_n, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((mean_rank[clean_n].sum() - right * (right + 1) / 2) / (right * wrong))


def kept_precision(selected: Flags, clean: ArrayLike) -> float:
    """Share of right labels among the kept; NaN where nothing is kept."""
    return float(np.asarray(clean, dtype=bool)[selected].mean()) if selected.any() else float("nan")
