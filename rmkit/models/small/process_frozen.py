"""Frozen process model: every step of a solution scored by a small head on a frozen encoder, minutes on two cores.

The head and its training are in `rmkit.heads.steps`; steps, their reduction to one value and comparisons are those of
process models that are transformers (`rmkit.models.transformer.process`). A step is judged by itself and what came
before it, and texts of any length can be read, for each step is encoded alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rmkit.chat.steps import in_steps
from rmkit.config import build_stored
from rmkit.errors import DataError, ModelError
from rmkit.features.encoder import Text
from rmkit.heads.steps import SURFACE, FrozenProcessConfig, Solution, StepHead, step_inputs
from rmkit.models.artifact import golden
from rmkit.models.artifact.folder import Artifact, Precision, open_artifact
from rmkit.models.scoring import prompt_text
from rmkit.models.small.frozen import encoder_of
from rmkit.models.transformer.process import p_first_right, step_score
from rmkit.types import Candidates, Comparison, Completion, Conversation, Score, compare_by_score

Encode = Callable[[Sequence[Text]], NDArray[Any]]


class FrozenProcessModel:
    """A trained head on its frozen encoder. Pointwise; scores are probabilities."""

    def __init__(self, artifact: Artifact, *, precision: Precision = "fp32") -> None:
        self.info = artifact.info
        self.config = build_stored(FrozenProcessConfig, artifact.card["config"], where=str(artifact.folder))
        self.precision: Precision = precision
        self._encoder = encoder_of(artifact, self.config, precision=precision)
        self._head = StepHead(artifact.weights(), {})
        width = self._head.arrays["mean"].shape if "mean" in self._head.arrays else None
        if width != (self._encoder.width + SURFACE,):
            raise ModelError(f"{artifact.folder}: the head does not fit the encoder's {self._encoder.width} components")

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] probabilities; a completion without text or with an empty step says why it has none."""
        return self._scores(batch, self._encoder.features)

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """Scores in fp32 and past the cache: what must come out again on any machine."""
        return self._scores(batch, lambda texts: self._encoder.encode(texts, dtype="fp32"))

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] the odds ratio of the two probabilities."""
        return compare_by_score(self.score, batch, p_first=p_first_right)

    def _scores(self, batch: Sequence[Candidates], encode: Encode) -> list[list[Score]]:
        read = [[self._read(item.prompt, completion) for completion in item.completions] for item in batch]
        solutions = [one for row in read for one in row if isinstance(one, Solution)]
        inputs = iter(step_inputs(solutions, encode, width=self._encoder.width) if solutions else [])
        return [
            [self._score(next(inputs)) if isinstance(one, Solution) else Score.failed(str(one)) for one in row]
            for row in read
        ]

    def _read(self, prompt: Conversation, completion: Completion) -> Solution | DataError:
        try:
            return solution_of(prompt, completion, separator=self.config.step_separator)
        except DataError as error:
            return error

    def _score(self, inputs: Any) -> Score:
        return step_score(self._head.logits(inputs).tolist(), reduction=self.config.reduction)


def solution_of(prompt: Conversation, completion: Completion, *, separator: str) -> Solution:
    """The texts that the encoder reads. Raises DataError without any text, or where a step has none."""
    marked = in_steps(completion, separator=separator)
    starts = (0, *marked.step_ends)
    steps = tuple(marked.text[start:end].strip() for start, end in zip(starts, marked.step_ends, strict=False))
    if "" in steps:
        raise DataError(f"the step ending at character {marked.step_ends[steps.index('')]} has no visible character")
    return Solution(prompt_text(prompt), steps)


def load(folder: Path, *, check: bool = True, precision: Precision = "fp32") -> FrozenProcessModel:
    """The model in an artifact folder, its golden scores replayed. Raises ModelError."""
    artifact = open_artifact(folder)
    return golden.verified(artifact, FrozenProcessModel(artifact, precision=precision), check=check)
