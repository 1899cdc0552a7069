"""A preference model of two responses: a frozen encoder, and a head that sees both at once.

    P(a > b | x) = sigmoid(m(a, b) / T),     m(a, b) = -m(b, a)      the head: rmkit.heads.pairs, of rank k

A score orders responses in a line; people and judges sometimes do not, and a head of rank k > 0 can say that a beats b,
b beats c and c beats a (`rmkit probe cycles` looks for that, with Nash weights in place of a best score). Heads of
several ranks compete, rank 0 (Bradley-Terry) among them, and the lowest validation log loss is kept: `head` in the card
says whether the data asked for more than a score. Exchanging the responses changes the sign by construction, so the
swap gap is zero, and each pair is asked once.

Compares only: scores are win logits within their list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from rmkit.chat.steps import NO_TEXT
from rmkit.config import build_stored
from rmkit.errors import ConfigError
from rmkit.heads.pairs import HeadShape, preference_margin
from rmkit.metrics.calibration import sigmoid
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import Artifact, Precision, open_artifact
from rmkit.models.scoring import Item
from rmkit.models.small.frozen import FrozenConfig, FrozenModel
from rmkit.types import Candidates, Comparison, Completion, Message, Score, score_by_comparison

YARDSTICK = Completion((Message("assistant", "I am not sure."),))  # golden scores are win logits against this reply


@dataclass(frozen=True, kw_only=True)
class PairwiseConfig(FrozenConfig):
    """An encoder, and the heads that compete on it."""

    hidden: Annotated[tuple[int, ...], "hidden units of the heads that compete (0: linear)"] = (0,)
    ranks: Annotated[tuple[int, ...], "ranks of the heads that compete (0: a difference of scores)"] = (0, 4, 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ranks or min(self.ranks) < 0:
            raise ConfigError(f"ranks: expected numbers of 0 or more, got {self.ranks}")

    @property
    def shapes(self) -> list[HeadShape]:
        """All heads that compete, the plainer ones first: of equally good ones the first is kept."""
        every = product(self.ranks, self.hidden, self.length)
        return [HeadShape(hidden, length, rank) for rank, hidden, length in every]


class PairwiseModel:
    """A trained head on its frozen encoder. Not pointwise."""

    def __init__(self, artifact: Artifact, *, precision: Precision = "fp32") -> None:
        self.info = artifact.info
        config = build_stored(PairwiseConfig, artifact.card["config"], where=str(artifact.folder))
        self._head = FrozenModel(artifact, config=config, paired=True, precision=precision)
        self._temperature = float(artifact.card["temperature"])

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`. A pair with a response without text is unscored."""
        if any(len(item.completions) != 2 for item in batch):
            raise ValueError("a comparison takes two completions")
        full = [item for item in batch if all(completion.text.strip() for completion in item.completions)]
        p_first = iter(sigmoid(self._margins(full)) if full else ())
        scored = set(map(id, full))
        return [
            Comparison(float(next(p_first)), swap_gap=0.0) if id(item) in scored else Comparison.failed(NO_TEXT)
            for item in batch
        ]

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `score_by_comparison`."""
        return score_by_comparison(self.compare, batch)

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """Margins over one fixed reply, in fp32 and past the cache: what must come out again on any machine."""
        pairs = [item.of(one, YARDSTICK) for item in batch for one in item.completions]
        margins = iter(self._margins(pairs, exactly=True).tolist())
        return [[Score(next(margins)) for _ in item.completions] for item in batch]

    def _margins(self, pairs: Sequence[Candidates], *, exactly: bool = False) -> NDArray[np.float64]:
        """[pairs] calibrated margins of the first response over the second."""
        outputs = []
        for side in (0, 1):
            items: list[Item] = [(pair.prompt, pair.completions[side]) for pair in pairs]
            outputs.append(self._head.outputs(self._head.features(items, exactly=exactly)).double())
        margins: NDArray[np.float64] = preference_margin(*outputs).numpy()
        return margins / self._temperature


def load(folder: Path, *, check: bool = True, precision: Precision = "fp32") -> PairwiseModel:
    """The model in an artifact folder, its golden scores replayed. Raises ModelError."""
    artifact = open_artifact(folder)
    return golden.verified(artifact, PairwiseModel(artifact, precision=precision), check=check)
