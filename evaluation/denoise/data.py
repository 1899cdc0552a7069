"""A dataset version as the denoising bench reads it: features and labels of its train and test pairs, and its noise.

Labels of the version are taken as right; noise is injected into the train split only, the test split stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.weighing import judged_pairs
from data_pipelines.steps import as_frame
from data_pipelines.steps.noise import Config as NoiseConfig
from data_pipelines.steps.noise import Kind, flips
from evaluation.denoise.grid import BenchData
from rmkit.data.pairs import Pair
from rmkit.errors import DataError
from rmkit.features.encoder import Encoder, EncoderConfig
from rmkit.ids import digest
from rmkit.models.small.frozen import pair_features
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.reliability.label_weights import check_enough
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve

MIN_TEST = 20


def version_frame(ref: str) -> tuple[pl.DataFrame, str, str]:
    """The rows of a version with votes, its full name and its digest."""
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, ref)
        version = get(connection, version_id)
        return as_frame(checkout(connection, version_id, votes=True)), version.ref, version.digest


def version_data(ref: str, *, encoder: EncoderConfig | None = None) -> BenchData:
    """Train and test pairs of a version. Raises DataError where there are too few, or no test split."""
    frame, name, version_digest = version_frame(ref)
    train, test = (
        judged_pairs(frame.filter(pl.col("split").is_in(splits)), splits) for splits in (("train",), ("test",))
    )
    check_enough(len(train), what="train pairs with a winner")
    if len(test) < MIN_TEST:
        raise DataError(
            f"{name} has {len(test)} test pairs with a winner, at least {MIN_TEST} are needed; split it by family "
            "with a recipe whose last step is split: rmkit run RECIPE --data NAME"
        )
    return bench_data(name, version_digest, train, test, noise=noise_of(frame, train), encoder=encoder)


def noise_of(frame: pl.DataFrame, pairs: Sequence[Pair]) -> Callable[[str, float, int], NDArray[np.bool_]]:
    """The noise step's flips on these pairs, in their order."""
    target = pl.DataFrame({"id": [pair.example for pair in pairs]})
    rows = target.join(frame, on="id", how="left", maintain_order="left")
    return partial(_flips, rows)


def _flips(rows: pl.DataFrame, kind: Kind, rate: float, seed: int) -> NDArray[np.bool_]:
    return flips(rows, NoiseConfig(kind=kind, rate=rate, seed=seed))


def bench_data(
    name: str,
    content: str,
    train: Sequence[Pair],
    test: Sequence[Pair],
    *,
    noise: Callable[[str, float, int], NDArray[np.bool_]],
    encoder: EncoderConfig | None = None,
) -> BenchData:
    """The pairs as features; every distinct text is encoded once. `content` is the digest of what they came from."""
    result = Encoder(encoder or EncoderConfig())
    features = pair_features([*train, *test], result)
    chosen_first = np.where(features.p[:, None] >= 0.5, [[0, 1, 2]], [[0, 2, 1]])
    rows = np.take_along_axis(features.rows, chosen_first, axis=1)
    sure = np.maximum(features.p, 1 - features.p)
    n = len(train)
    return BenchData(
        name=name,
        digest=digest([content, result.fingerprint]),
        train=FeaturePairs(
            tuple(pair.example for pair in train),
            features.vectors,
            rows[:n],
            soft_label=sure[:n] if (sure[:n] < 1).any() else None,
            weight=features.weight[:n] if (features.weight[:n] != 1).any() else None,
        ),
        test=FeaturePairs(tuple(pair.id for pair in test), features.vectors, rows[n:]),
        test_family=np.array([pair.family for pair in test], dtype=np.int64),
        flips=noise,
        facts={"train_pairs": n, "test_pairs": len(test), "test_families": len({pair.family for pair in test})},
    )
