"""Frozen encoder and a small head: a first neural reward model, a minute on two cores.

    r(x, y) = head(features of x and y) / T          heads and their training: rmkit.heads.pairs

Linear heads and ones with a hidden layer compete, with and without the response's length among their inputs, and the
one with the lowest validation log loss is kept. T is fitted on the validation pairs. The linear heads win on a few
thousand pairs; the others need more. A head that reads the length can be paid in words: `length = [false]` forbids it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmkit.cli import display
from rmkit.config import build_stored
from rmkit.data.pairs import Pair, column
from rmkit.errors import ModelError
from rmkit.features.encoder import Encoder, EncoderConfig, Text, single_threaded
from rmkit.heads.pairs import (
    Features,
    HeadShape,
    PairFeatures,
    PairHeadConfig,
    TrainedHead,
    check_shapes,
    head_scores,
    train_head,
)
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import Artifact, Precision, open_artifact
from rmkit.models.scoring import Item, prompt_text, score_each
from rmkit.types import Candidates, Comparison, Score, compare_by_score

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class FrozenConfig(EncoderConfig, PairHeadConfig):
    """An encoder, and the heads that compete on it."""

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        PairHeadConfig.__post_init__(self)


@dataclass(frozen=True, slots=True)
class Fit:
    """The chosen head's arrays, its uncalibrated margins on the validation pairs, and what the choice showed."""

    arrays: Mapping[str, NDArray[np.float32]]
    validation_margin: NDArray[np.float64]
    facts: Mapping[str, Any]
    encoder: Encoder


def fit(train: Sequence[Pair], validation: Sequence[Pair], config: FrozenConfig, *, seed: int = 0) -> Fit:
    """Encode both sets (cached), train every head of the config, keep the best. The seed decides init and order."""
    encoder = Encoder(config)
    seen, held = (pair_features(pairs, encoder) for pairs in (train, validation))
    heads: dict[HeadShape, TrainedHead] = {}
    with display.progress("training heads", config.epochs * len(config.shapes)) as advance, single_threaded():
        for shape in config.shapes:
            heads[shape] = train_head(seen, held, config, shape=shape, seed=seed, advance=advance)
    best = min(heads, key=lambda shape: heads[shape].validation_log_loss)
    return Fit(
        arrays={name: weight.numpy() for name, weight in heads[best].weights.items()},
        validation_margin=heads[best].validation_margin,
        facts={
            "head": str(best),
            "epoch": heads[best].epoch,
            "validation_log_loss_by_head": {str(shape): head.validation_log_loss for shape, head in heads.items()},
        },
        encoder=encoder,
    )


def pair_features(pairs: Sequence[Pair], encoder: Encoder) -> PairFeatures:
    """Features of the pairs' prompts and responses, each distinct text encoded once."""
    row_of: dict[Text, int] = {}
    rows = np.empty((len(pairs), 3), dtype=np.int64)
    for index, pair in enumerate(pairs):
        candidates = pair.candidates
        items = [(candidates.prompt, completion) for completion in candidates.completions]
        texts = [prompt_of(items[0]), *(response_of(item) for item in items)]
        rows[index] = [row_of.setdefault(text, len(row_of)) for text in texts]
    with display.progress("encoding texts", len(row_of)) as advance:
        vectors = encoder.features(list(row_of), advance=advance)
    log_length = log_lengths([text.text for text in row_of])
    return PairFeatures(vectors, log_length, rows, column(pairs, "p"), column(pairs, "weight"), column(pairs, "share"))


def log_lengths(texts: Sequence[str]) -> NDArray[np.float32]:
    """[n] ln(1 + characters), as the length rule counts them: of the whole text, however much of it is encoded."""
    return np.log1p(np.array([len(text) for text in texts], dtype=np.float32))


def prompt_of(item: Item) -> Text:
    return Text(prompt_text(item[0]), "end")


def response_of(item: Item) -> Text:
    return Text(item[1].text, "start")


def encoder_of(artifact: Artifact, config: EncoderConfig, *, precision: Precision = "fp32") -> Encoder:
    """The encoder that the artifact was trained on, to be run in `precision` whatever it was trained in. Raises
    ModelError where the config now finds another one."""
    encoder = Encoder(replace(config, dtype=precision))
    expected = (artifact.card.get("encoder") or {}).get("fingerprint")
    if expected not in (encoder.fingerprint_in("fp32"), encoder.fingerprint_in("bf16")):
        now = encoder.fingerprint_in(config.dtype)
        raise ModelError(
            f"{artifact.folder}: trained on encoder {expected}, but {encoder.folder} gives {now}; "
            "put the original encoder back or train again"
        )
    return encoder


class FrozenModel:
    """A trained head on its frozen encoder. Pointwise; scores are calibrated logits. In bf16 batch mates move them."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        config: FrozenConfig | None = None,
        paired: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        import torch

        self.info = artifact.info
        config = config or build_stored(FrozenConfig, artifact.card["config"], where=str(artifact.folder))
        self.precision: Precision = precision
        self._encoder = encoder_of(artifact, config, precision=precision)
        self._temperature = float(artifact.card["temperature"])
        self._weights = {name: torch.from_numpy(array) for name, array in artifact.weights().items()}
        check_shapes(self._weights, self._encoder.width, where=str(artifact.folder), paired=paired)

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return score_each(batch, self._values)

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """Scores in fp32 and past the cache: what must come out again on any machine."""
        return score_each(batch, lambda items: self.rewards(self.features(items, exactly=True)))

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    @property
    def encoder(self) -> Encoder:
        """The trunk; models on encoders of one fingerprint can share its features."""
        return self._encoder

    def replace_output(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Put other output weights, [inputs] or [heads, inputs], in place of the head's own ones."""
        self._weights = self._weights | {"out": change(self._weights["out"])}

    def rewards(self, features: Features) -> NDArray[np.float64]:
        """[n] calibrated rewards; [n, heads] from several output rows."""
        rewards: NDArray[np.float64] = self.outputs(features).double().numpy()
        return rewards / self._temperature

    def outputs(self, features: Features) -> torch.Tensor:
        """What the head gives before calibration, shaped as `rewards`."""
        import torch

        with torch.no_grad():
            return head_scores(features, self._weights)

    def features(self, items: list[Item], *, exactly: bool = False) -> Features:
        """fp32 features of the items' prompts and responses: rounded, from the cache, or exactly, past it."""
        import torch

        encode = self._encode_exactly if exactly else self._encoder.features
        vectors = encode([*map(prompt_of, items), *map(response_of, items)])
        prompt, response = (torch.from_numpy(part).float() for part in np.split(vectors, 2))
        lengths = log_lengths([completion.text for _, completion in items])
        return Features(prompt, response, torch.from_numpy(lengths))

    def _values(self, items: list[Item]) -> NDArray[np.float64]:
        return self.rewards(self.features(items))

    def _encode_exactly(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        return self._encoder.encode(texts, dtype="fp32")


def load(folder: Path, *, check: bool = True, precision: Precision = "fp32") -> FrozenModel:
    """The model in an artifact folder, its golden scores replayed. Raises ModelError."""
    artifact = open_artifact(folder)
    return golden.verified(artifact, FrozenModel(artifact, precision=precision), check=check)
