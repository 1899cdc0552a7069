"""What explicit, implicit and process models share: conversations in, scores out, through a transformer.

A batch goes through in windows of `WINDOW` items. Every completion becomes ids (`place`), the ids of all of them go
through the network under a token budget (`outputs`), and what comes out for one completion becomes its score (`read`).
A kind of model says these three things; order, faults, memory, precision and comparisons are dealt with here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from rmkit.chat.encode import Chat, Encoded
from rmkit.chat.steps import NO_TEXT
from rmkit.errors import DataError
from rmkit.models.artifact.folder import Precision
from rmkit.models.scoring import WINDOW
from rmkit.models.transformer.packing import packed_tokens
from rmkit.types import Candidates, Comparison, Completion, ModelInfo, Score, compare_by_score, sigmoid

log = logging.getLogger(__name__)


class TransformerModel:
    """Completed by `outputs` and `read`. `max_batch_tokens` is the budget of one forward pass, padding included."""

    def __init__(
        self,
        chat: Chat,
        info: ModelInfo,
        *,
        temperature: float = 1.0,
        max_batch_tokens: int = 8192,
        precision: Precision = "fp32",
    ) -> None:
        self.chat = chat
        self.info = info
        self.temperature = temperature
        self.max_batch_tokens = max_batch_tokens
        self.precision = precision

    def place(self, item: Candidates, completion: Completion) -> Encoded:
        """The ids of one completion behind its prompt. Raises DataError where it cannot be scored."""
        return self.chat.encode(item.prompt, completion, item.tools)

    def outputs(self, rows: Sequence[Sequence[Encoded]]) -> list[list[Any]]:
        """[P][N] what the network says of every completion, by passes of at most `max_batch_tokens` tokens."""
        raise NotImplementedError

    def read(self, output: Any, encoded: Encoded) -> Score:
        """The score behind one completion's output."""
        raise NotImplementedError

    def p_first(self, first: float, second: float) -> float:
        """The probability that the first of two is better, from their values."""
        return sigmoid((first - second) / self.temperature)

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P] Candidates -> [P][N] Score in order; a completion that cannot be scored says why."""
        return [row for at in range(0, len(batch), WINDOW) for row in self._score_window(batch[at : at + WINDOW])]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] Candidates of two -> [P] Comparison."""
        return compare_by_score(self.score, batch, p_first=self.p_first)

    def golden_scores(self, batch: Sequence[Candidates], *, precision: Precision = "fp32") -> list[list[Score]]:
        """Scores in one precision, as the golden ones of it were stored."""
        usual, self.precision = self.precision, precision
        try:
            return self.score(batch)
        finally:
            self.precision = usual

    def encode(self, item: Candidates, completion: Completion) -> Encoded | Exception:
        """The ids of one completion, or why there are none: whatever one item provokes must not lose the batch."""
        if not any(one.content.strip() or one.tool_calls or one.reasoning for one in completion.messages):
            return DataError(NO_TEXT)
        try:
            return self.place(item, completion)
        except DataError as error:
            return error
        except Exception as error:
            log.warning("item not encoded: %s", type(error).__name__)  # its message may quote the text
            return error

    def fitting(self, rows: Sequence[Sequence[Encoded]]) -> list[list[Any]]:
        """`outputs`, but running out of memory halves the token budget and goes on."""
        while True:
            try:
                return self.outputs(rows)
            except torch.OutOfMemoryError:
                if self.max_batch_tokens <= max(packed_tokens([one.ids for one in row]) for row in rows):
                    raise
                self.max_batch_tokens //= 2
                log.warning("out of memory: going on with %d tokens a batch", self.max_batch_tokens)

    def _score_window(self, items: Sequence[Candidates]) -> list[list[Score]]:
        encoded = [[self.encode(item, completion) for completion in item.completions] for item in items]
        rows = [[one for one in row if isinstance(one, Encoded)] for row in encoded]
        result = iter([output for row in self.fitting([row for row in rows if row]) for output in row])
        return [
            [self.read(next(result), one) if isinstance(one, Encoded) else Score.failed(str(one)) for one in row]
            for row in encoded
        ]
