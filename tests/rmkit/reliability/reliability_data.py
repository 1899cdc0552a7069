"""Pairs with a linear truth on made-up features: easy to learn, so that selection can tell right labels from wrong."""

from __future__ import annotations

import numpy as np

from rmkit.reliability.feature_pairs import FeaturePairs, stacked


def planted_pairs(n: int, *, width: int = 32, seed: int = 0, gap: float = 3.0) -> FeaturePairs:
    """n pairs whose chosen response is better by a fixed linear taste, `gap` further apart than by chance."""
    taste = np.random.default_rng(99).standard_normal(width)
    generator = np.random.default_rng(seed)
    prompt, chosen, rejected = (generator.standard_normal((n, width)).astype(np.float32) for _ in range(3))
    value = (chosen - rejected) @ taste
    turned = value < 0
    chosen[turned], rejected[turned] = rejected[turned].copy(), chosen[turned].copy()
    chosen += (gap * taste / np.linalg.norm(taste)).astype(np.float32)
    return stacked([f"pair-{number:05d}" for number in range(n)], prompt, *(x / width**0.5 for x in (chosen, rejected)))


def flips(n: int, rate: float, *, seed: int = 0) -> np.ndarray:
    """[n] mask with exactly round(rate * n) True."""
    mask = np.zeros(n, dtype=bool)
    mask[np.random.default_rng([seed, 7]).permutation(n)[: round(rate * n)]] = True
    return mask
