"""Speed of peer review beside one head, and of T dropout passes beside one, for `rmkit bench denoising --speed`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rmkit.cli import display
from rmkit.heads.stacked_training import HeadConfig, fit_heads
from rmkit.reliability.crm import collaborate
from rmkit.reliability.feature_pairs import FeaturePairs, stacked

WIDTH, BATCH, NOISE, PASSES = 384, 512, 0.4, 10
TRUNK_TEXTS = 1200


def measure(*, pairs: int, repeats: int, texts: Path | None, encoder: str) -> dict[str, object]:
    """Seconds and ratios; the trunk part only where texts are given."""
    result: dict[str, object] = {"peer_review": peer_review(pairs, repeats)}
    if texts is not None:
        result["dropout"] = dropout_passes(texts, encoder, repeats)
    return result


def peer_review(n: int, repeats: int) -> dict[str, object]:
    """Ten epochs of peer review and of one standard head on n made-up pairs, 40% of them turned around."""
    noisy = made_up(n)
    head = HeadConfig(batch_pairs=BATCH)
    ways: dict[str, Callable[[], Any]] = {
        "standard": lambda: fit_heads(noisy, head, seeds=(0,)),
        "peer": lambda: collaborate(noisy, noise=NOISE, head=head),
    }
    times = _in_turn(ways, repeats, label="trainings")
    return {"pairs": n, "width": WIDTH, "batch": BATCH, "epochs": head.epochs, **_timings(times, "peer", "standard")}


def made_up(n: int) -> FeaturePairs:
    """Unit vectors in fp16 labeled by a linear taste, an exact share of the labels turned around."""
    generator = np.random.default_rng(0)
    prompt, first, second = (_unit(generator.standard_normal((n, WIDTH), dtype=np.float32)) for _ in range(3))
    taste = (first - second) @ generator.standard_normal(WIDTH, dtype=np.float32) < 0
    flips = np.zeros(n, dtype=bool)
    flips[generator.permutation(n)[: round(NOISE * n)]] = True
    ids = [f"{number:07d}" for number in range(n)]
    return stacked(ids, *(part.astype(np.float16) for part in (prompt, first, second))).flipped(taste ^ flips)


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def dropout_passes(path: Path, encoder_name: str, repeats: int) -> dict[str, object]:
    """Encoding pairs past the cache and asking the estimator once, or with T dropout passes."""
    from evaluation.denoise.tasks import encoder_of, read_talks, texts_of
    from rmkit.heads.pair_estimator import EstimatorConfig, PairEstimator

    encoder = encoder_of(encoder_name)
    talks = read_talks(path)[: TRUNK_TEXTS // 3]
    texts = texts_of(talks)
    ids = [talk.id for talk in talks]
    estimator = PairEstimator(encoder.width, EstimatorConfig(passes=PASSES))
    encoder.encode(texts[:8])  # loads the network

    def encoded() -> FeaturePairs:
        return stacked(ids, *np.split(encoder.encode(texts), 3))

    ways: dict[str, Callable[[], Any]] = {
        "one": lambda: estimator.probability(encoded()),
        "dropout": lambda: estimator.uncertainty(encoded()),
    }
    times = _in_turn(ways, repeats, label="passes")
    return {"pairs": len(talks), "passes": PASSES, **_timings(times, "dropout", "one")}


def _in_turn(ways: dict[str, Callable[[], Any]], repeats: int, *, label: str) -> dict[str, list[float]]:
    """Wall seconds of each way, the order turned round in every other repeat."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with display.progress(label, repeats * len(ways)) as advance:
        for repeat in range(repeats):
            names = list(ways) if repeat % 2 == 0 else list(ways)[::-1]
            for name in names:
                start = time.perf_counter()
                ways[name]()
                times[name].append(time.perf_counter() - start)
                advance(1)
    return times


def _timings(times: dict[str, list[float]], ours: str, other: str) -> dict[str, object]:
    ratios = [a / b for a, b in zip(times[ours], times[other], strict=True)]
    return {
        f"{ours}_s": statistics.median(times[ours]),
        f"{other}_s": statistics.median(times[other]),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "repeats": len(ratios),
    }
