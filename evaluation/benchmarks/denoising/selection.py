"""How clean UPO's selections are: wrong labels among model-labeled pairs, for `rmkit bench denoising`.

Of a task's training pairs 400 keep their right labels; a reward head and a dropout estimator learn from them. The other
pairs get the order that the head prefers, whose mistakes are known. Each rule then keeps its part of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evaluation.denoise.grid import BenchData
from rmkit.cli import display
from rmkit.features.encoder import single_threaded
from rmkit.heads.pair_estimator import EstimatorConfig, PairEstimator
from rmkit.heads.stacked import Table, score_margins
from rmkit.heads.stacked_training import HeadConfig, fit_heads
from rmkit.reliability.upo import Selector, UpoConfig, select_certain

LABELED = 400
SELECTORS: tuple[Selector, ...] = ("drawn", "bald", "mean_p", "margin")


def selection(tasks: Sequence[BenchData], *, seeds: int, spread: Callable[[Any], Any]) -> dict[str, object]:
    """Per task and rule the percentage of wrong labels, summarized over seeds by `spread`."""
    by_key: dict[str, Any] = {}
    with display.progress("selections", len(tasks) * seeds) as advance, single_threaded():
        for data in tasks:
            rows = []
            for seed in range(seeds):
                rows.append(wrong_shares(data, seed=seed))
                advance(1)
            by_key[data.name] = {rule: spread(np.array([100 * row[rule] for row in rows])) for rule in rows[0]}
    return by_key


def wrong_shares(data: BenchData, *, seed: int) -> dict[str, float]:
    """Share of wrong labels among all model-labeled pairs, those that the estimator agrees with, each selection."""
    order = np.random.default_rng(seed).permutation(len(data.train))
    labeled, others = data.train.take(order[:LABELED]), data.train.take(order[LABELED:])
    reward = score_margins(fit_heads(labeled, HeadConfig(), seeds=(seed,)), Table(others))[0].astype(np.float64)
    wrong = reward < 0
    pairs, margin = others.flipped(wrong), np.abs(reward)
    estimate = PairEstimator(pairs.width, EstimatorConfig(epochs=HeadConfig().epochs), seed=seed).fit(labeled)
    uncertainty = estimate.uncertainty(pairs)
    shares = {"all": float(wrong.mean()), "agreed": float(wrong[uncertainty.vote >= 0.5].mean())}
    for selector in SELECTORS:
        selected = select_certain(
            pairs.ids, uncertainty, margin=margin, config=UpoConfig(selector=selector), seed=seed
        ).keep
        shares[selector] = float(wrong[selected].mean()) if selected.any() else float("nan")
    return shares
