"""A suite: the items of one split that models are asked about, and one model's answers to all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmkit.cli import display as console
from rmkit.data.example import Example
from rmkit.data.export_folder import dataset_of, examples_of, export_folder
from rmkit.data.pairs import Pair, read_pairs
from rmkit.errors import DataError
from rmkit.metrics.calibration import sigmoid
from rmkit.types import RewardModel, Score

BATCH = 256
LOGIT_SCALES = ("logit", "log_ratio", "win_logit")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What models are asked: examples with their pairs, in order. `ref`, `digest` and `split` name it."""

    ref: str
    digest: str | None
    split: str
    examples: Sequence[Example]
    pairs: Sequence[Pair]
    skipped: Mapping[str, int]

    @property
    def lengths(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Characters of the first and of the second response of each pair."""
        texts = [[completion.text for completion in pair.candidates.completions] for pair in self.pairs]
        first, second = (np.array([len(both[side]) for both in texts], dtype=np.float64) for side in (0, 1))
        return first, second


@dataclass(frozen=True, slots=True)
class Scored:
    """One model's answers. `scores` by example id; `margin` and `predicted` [pairs], NaN where unscored."""

    model: RewardModel
    path: str
    scores: Mapping[str, Sequence[Score]]
    margin: NDArray[np.float64]
    predicted: NDArray[np.float64]
    seconds: float
    latency_ms: Mapping[str, float]


def load_held_out(data: str, split: str) -> HeldOut:
    """The items of one split (or `all`). Raises DataError where nothing in it can be compared."""
    folder = export_folder(data)
    examples = examples_of(folder, split)
    pairs, skipped = read_pairs(examples)
    if not pairs:
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in skipped.items())
        steps = any(example.row["step_labels"] for example in examples)
        suite = f"; solutions in labeled steps: rmkit eval MODEL --suite steps --data {data}:{split}" if steps else ""
        raise DataError(
            f"{data}, split {split}: nothing to evaluate, no row has a label that compares ({reasons}){suite}"
        )
    targets = {pair.example for pair in pairs}
    identity = dataset_of(folder)
    return HeldOut(
        ref=identity["ref"] or folder.name,
        digest=identity["digest"],
        split=split,
        examples=[example for example in examples if example.id in targets],
        pairs=pairs,
        skipped=skipped,
    )


def score_held_out(model: RewardModel, held_out: HeldOut, *, path: str) -> Scored:
    """Every example scored once, in batches, longest wait shown; margins are read off the example's scores."""
    scores: dict[str, list[Score]] = {}
    latency_ms: dict[str, float] = {}
    start = time.monotonic()
    with console.progress(f"scoring with {model.info.name}", len(held_out.examples)) as advance:
        for at in range(0, len(held_out.examples), BATCH):
            batch, began = held_out.examples[at : at + BATCH], time.monotonic()
            answers = model.score([example.candidates for example in batch])
            each_ms = 1000 * (time.monotonic() - began) / len(batch)
            for example, answer in zip(batch, answers, strict=True):
                scores[example.id], latency_ms[example.id] = answer, each_ms
            advance(len(batch))
    margin = np.array(
        [scores[pair.example][pair.i].value - scores[pair.example][pair.j].value for pair in held_out.pairs]
    )
    return Scored(
        model=model,
        path=path,
        scores=scores,
        margin=margin,
        predicted=_predicted(model, held_out, margin),
        seconds=time.monotonic() - start,
        latency_ms=latency_ms,
    )


def _predicted(model: RewardModel, held_out: HeldOut, margin: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(first better): the Bradley-Terry link on logit scales; other scales have none, so the model itself is asked."""
    if model.info.scale in LOGIT_SCALES:
        return sigmoid(margin)
    return np.array([answer.p_first for answer in model.compare([pair.candidates for pair in held_out.pairs])])
