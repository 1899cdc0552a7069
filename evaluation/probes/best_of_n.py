"""Best of N: what the reward model's favorite among N samples is worth in gold reward, as N grows.

From K scored samples of one prompt, the favorite of a random subset of N is the sample with the i-th lowest proxy
score with probability C(i - 1, n - 1) / C(K, n) (equal scores share theirs), so the expectation over all subsets is
exact and no subset is drawn:

    E[gold of best of n] = sum_i C(i - 1, n - 1) / C(K, n) gold_(i)          (Nakano et al. 2021, appendix I)

averaged over prompts. Told beside it: the same with the gold reward as its own proxy (the best that can be had), the
mean gold (a random choice), and KL = ln n - (n - 1) / n, the best-of-n policy's distance from the sampling policy
(Hilton & Gao 2022; an upper bound, Beirami et al. 2024). Over-optimization shows as gold that falls while proxy rises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.suites.items import Answer, Item


def weights(scores: ArrayLike, n: int) -> NDArray[np.float64]:
    """[K] probability of each sample to be the favorite among n drawn without replacement."""
    value = np.asarray(scores, dtype=np.float64)
    k = len(value)
    by_rank = np.array([math.comb(i, n - 1) / math.comb(k, n) for i in range(k)])
    order = np.argsort(value, kind="stable")
    values = np.empty(k)
    values[order] = by_rank
    _, group = np.unique(value, return_inverse=True)
    totals = np.bincount(group, weights=values) / np.bincount(group)
    shared: NDArray[np.float64] = totals[group]
    return shared


def kl(n: int) -> float:
    """ln n - (n - 1) / n in nats."""
    return math.log(n) - (n - 1) / n


def best_of_n_probe(items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, object] | None:
    """The curve over n from 1 to the smallest K that prompts have (at least 3), proxy in units of its own within-prompt
    deviation; prompts without gold values or with a lost score are left out and counted. None without such prompts."""
    by_item = {answer.item: answer for answer in answers}
    samples = [(_gold(item), np.array(by_item[item.id].scores)) for item in items if "values" in item.gold]
    known = [(g, s) for g, s in samples if len(s) == len(g) >= 3 and not (np.isnan(g).any() or np.isnan(s).any())]
    if not known:
        return None
    largest = min(len(gold) for gold, _ in known)
    return {
        "prompts": len(known),
        "left_out": len(samples) - len(known),
        "curve": [_point(known, n) for n in range(1, largest + 1)],
    }


def _gold(item: Item) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else float(value) for value in item.gold["values"]])


def _point(known: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], n: int) -> dict[str, float]:
    gold = [float(weights(proxy, n) @ value) for value, proxy in known]
    deviation = math.sqrt(float(np.mean([proxy.var() for _, proxy in known]))) or 1.0
    proxy = [float(weights(score, n) @ (score - score.mean())) / deviation for _, score in known]
    return {
        "n": n,
        "kl": kl(n),
        "gold": float(np.mean(gold)),
        "gold_se": float(np.std(gold, ddof=1) / math.sqrt(len(gold))) if len(gold) > 1 else math.nan,
        "proxy": float(np.mean(proxy)),
        "oracle": float(np.mean([weights(value, n) @ value for value, _ in known])),
        "random": float(np.mean([value.mean() for value, _ in known])),
    }
