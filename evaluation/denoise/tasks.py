"""Tasks with known labels on which denoising is judged: real texts, labels taken as right, a clean test part.

    relevance    the reply that was given against one given to another prompt: right by construction, easy to learn
    preferences  the file's own labels: hard to learn, even clean training stays far from 100%
    planted      the file's pairs, labeled by a dense random linear teacher on the frozen features: margins after an
                 epoch barely separate right from wrong labels, so selection hardly helps
    rmbench      one domain of RM-Bench

Prompts with the same first turn never stand on both sides. Features come from the frozen encoder (cached); the training
labels are then turned around by the kinds of `rmkit noise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.steps.noise import Config as NoiseConfig
from data_pipelines.steps.noise import Kind, flips
from evaluation.denoise.grid import BenchData
from evaluation.suites.load import read_rows
from rmkit.cli import display
from rmkit.errors import DataError
from rmkit.features.encoder import Encoder, EncoderConfig, Text
from rmkit.ids import assistant_message, canonical_json, content_hash, digest
from rmkit.models.scoring import prompt_text
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.types import Message

TEST_PAIRS = 500


@dataclass(frozen=True, slots=True)
class Talk:
    """A prompt with a better and a worse reply; talks of one `group` stay on one side of the split."""

    id: str
    group: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def prompt_json(self) -> str:
        return canonical_json([{"content": turn.content, "role": turn.role} for turn in self.prompt])


def read_talks(path: Path, *, subset: str = "") -> list[Talk]:
    """The pairs of a `pairs_` or `bench_` file whose subset begins with `subset`. Raises DataError for none."""
    talks = [_talk(row) for row in read_rows(path) if str(row.get("subset") or "").startswith(subset)]
    if not talks:
        raise DataError(f"{path} has no pairs{f' of a subset {subset}...' if subset else ''}")
    return talks


def _talk(row: Mapping[str, Any]) -> Talk:
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])
    return Talk(row["id"], content_hash(prompt[0].content), prompt, row["chosen"], row["rejected"])


def split(talks: Sequence[Talk], *, test: float | int, seed: int = 0) -> tuple[list[Talk], list[Talk]]:
    """Train and test: whole groups in random order go to the test part until it has `test` pairs (or that share).

    Raises DataError where nothing would be left to one of them.
    """
    target = test if isinstance(test, int) else round(test * len(talks))
    groups = sorted({talk.group for talk in talks})
    sizes = dict.fromkeys(groups, 0)
    for talk in talks:
        sizes[talk.group] += 1
    held: set[str] = set()
    taken = 0
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if taken + sizes[groups[index]] <= target:
            held.add(groups[index])
            taken += sizes[groups[index]]
    if not 0 < taken < len(talks):
        raise DataError(
            f"{len(talks)} pairs are too few to hold {target} out for the test and learn from the rest; give more"
        )
    return [talk for talk in talks if talk.group not in held], [talk for talk in talks if talk.group in held]


def mismatched(talks: Sequence[Talk], *, seed: int = 0) -> list[Talk]:
    """The same talks, each with a reply that was given to a talk of another group as the worse one."""
    order = np.random.default_rng(seed).permutation(len(talks))
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    results = []
    for at, talk in enumerate(talks):
        there = other[at]
        while talks[there].group == talk.group or talks[there].chosen == talk.chosen:
            there = other[there]
            if there == other[at]:
                raise DataError("all replies are alike or of one prompt: no mismatched pair can be made")
        results.append(replace(talk, rejected=talks[there].chosen))
    return results


def relevance(path: Path, *, encoder: Encoder, seed: int = 0) -> BenchData:
    """Matched against mismatched replies."""
    parts = [mismatched(part, seed=seed) for part in split(read_talks(path), test=TEST_PAIRS, seed=seed)]
    return bench_data("relevance", parts, encoder)


def preferences(path: Path, *, encoder: Encoder, seed: int = 0) -> BenchData:
    """The file's own labels."""
    return bench_data("preferences", split(read_talks(path), test=TEST_PAIRS, seed=seed), encoder)


def rmbench(path: Path, *, encoder: Encoder, domain: str = "safety", seed: int = 0) -> BenchData:
    """One RM-Bench domain, three tenths of the prompts held out."""
    return bench_data(f"rmbench-{domain}", split(read_talks(path, subset=domain), test=0.3, seed=seed), encoder)


def planted(path: Path, *, encoder: Encoder, seed: int = 0) -> BenchData:
    """The file's pairs under labels of a teacher that weighs every component of [p, y, p * y] at random."""
    parts = split(read_talks(path), test=TEST_PAIRS, seed=seed)
    weights = np.random.default_rng(seed).standard_normal((2, encoder.width))
    turned = []
    for part in parts:
        prompt, chosen, rejected = np.split(encoder.features(texts_of(part)).astype(np.float64), 3)
        taste = ((chosen - rejected) * (weights[0] + prompt * encoder.width**0.5 * weights[1])).sum(axis=1)
        turned.append(
            [
                talk if value > 0 else replace(talk, chosen=talk.rejected, rejected=talk.chosen)
                for talk, value in zip(part, taste, strict=True)
            ]
        )
    return bench_data("planted", turned, encoder)


def bench_data(name: str, parts: Sequence[Sequence[Talk]], encoder: Encoder) -> BenchData:
    """Train and test talks as features with clean labels, ready for noise."""
    train, test = parts
    with display.progress(f"encoding {name}", 3 * (len(train) + len(test))) as advance:
        result = [_pairs(part, encoder, advance) for part in parts]
    settings = [f"{talk.id} {talk.prompt_json} {talk.chosen} {talk.rejected}" for part in parts for talk in part]
    groups = {group: number for number, group in enumerate(sorted({talk.group for talk in test}))}
    return BenchData(
        name=name,
        digest=digest([encoder.fingerprint, *settings]),
        train=result[0],
        test=result[1],
        test_family=np.array([groups[talk.group] for talk in test]),
        flips=partial(_flips, noise_frame(train)),
        facts={"train_pairs": len(train), "test_pairs": len(test), "test_prompts": len(groups)},
    )


def _pairs(talks: Sequence[Talk], encoder: Encoder, advance: Any) -> FeaturePairs:
    """Each distinct text once, so that pairs of one prompt share its row (and so their fold in cross-fitting)."""
    place: dict[Text, int] = {}
    rows = np.array([place.setdefault(text, len(place)) for text in texts_of(talks)])
    vectors = encoder.features(list(place), advance=advance)
    return FeaturePairs(tuple(talk.id for talk in talks), vectors, rows.reshape(3, len(talks)).T.copy())


def texts_of(talks: Sequence[Talk]) -> list[Text]:
    """Prompts, then better, then worse replies."""
    prompts = [Text(prompt_text(talk.prompt), "end") for talk in talks]
    return prompts + [Text(getattr(talk, side), "start") for side in ("chosen", "rejected") for talk in talks]


def noise_frame(talks: Sequence[Talk]) -> pl.DataFrame:
    """The talks as the noise step reads rows: the better reply first."""
    return pl.DataFrame(
        {
            "unit": [talk.id for talk in talks],
            "prompt": [talk.prompt_json for talk in talks],
            "responses": [[assistant_message(talk.chosen), assistant_message(talk.rejected)] for talk in talks],
            "p": [[1.0, 0.0]] * len(talks),
            "votes": [[] for _ in talks],
        },
        schema_overrides={"votes": pl.List(pl.Struct({"rater": pl.String}))},
    )


def _flips(frame: pl.DataFrame, kind: Kind, rate: float, seed: int) -> NDArray[np.bool_]:
    return flips(frame, NoiseConfig(kind=kind, rate=rate, seed=seed))


def encoder_of(name: str) -> Encoder:
    """The frozen encoder by name or folder, 256 tokens a text."""
    return Encoder(EncoderConfig(encoder=name))
