"""similarity: how near a completion is to its reference by the frozen encoder, in [-1, 1].

s = cosine(completion, reference)
weighted      sum_k w_k s_k / sum_k w_k over several references (a JSON list, or objects {"text", "weight"})
harmonic      sum_k w_k / sum_k (w_k / s_k), 0 where any s_k <= 0: all of them must be near
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from rmkit.errors import DataError
from rmkit.types import Candidates, Score
from rmkit.verifiers.verifier import gold

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Unscored without a reference, and for an empty completion."""

    encoder: Annotated[str, "the frozen encoder: minilm, or a folder"] = "minilm"
    rule: Annotated[Literal["weighted", "harmonic"], "how several references are joined"] = "weighted"

    revision: ClassVar[int] = 1

    def verify(self, items: Sequence[Candidates]) -> list[list[Score]]:
        from rmkit.features.encoder import Text

        references: list[list[tuple[str, float]] | str] = []
        for item in items:
            try:
                references.append(_references(gold(item)))
            except DataError as error:
                references.append(str(error))
        texts = {text for one in references if not isinstance(one, str) for text, _ in one}
        texts |= {completion.text for item in items for completion in item.completions if completion.text.strip()}
        ordered = sorted(texts)
        vectors = _encoder(self.encoder)([Text(text, "start") for text in ordered]) if ordered else ()
        by_text = dict(zip(ordered, vectors, strict=True))
        return [
            [self._score(one, completion.text, by_text) for completion in item.completions]
            for item, one in zip(items, references, strict=True)
        ]

    def _score(self, references: list[tuple[str, float]] | str, text: str, vectors: dict[str, Any]) -> Score:
        if isinstance(references, str):
            return Score.failed(references)
        if not text.strip():
            return Score.failed("the completion is empty")
        near = [float(np.dot(vectors[text], vectors[other])) for other, _ in references]
        weights = [weight for _, weight in references]
        if self.rule == "weighted":
            return Score(float(np.average(near, weights=weights)))
        if min(near) <= 0:
            return Score(0.0)
        return Score(sum(weights) / sum(weight / one for weight, one in zip(weights, near, strict=True)))


def _references(reference: str) -> list[tuple[str, float]]:
    try:
        value = json.loads(reference)
    except (ValueError, RecursionError):
        value = reference
    rows = value if isinstance(value, list) else [reference]
    whole: list[Any] = [{"text": row, "weight": 1.0} if isinstance(row, str) else row for row in rows]
    try:
        pairs = [(str(row["text"]), float(row.get("weight", 1.0))) for row in whole]
    except (AttributeError, KeyError, TypeError, ValueError):
        pairs = []
    if not pairs or not all(text.strip() and weight > 0 for text, weight in pairs):
        raise DataError("references are texts, or objects with text and a weight above 0")
    return pairs


@cache
def _encoder(name: str) -> Callable[..., NDArray[np.float32]]:
    from rmkit.features.encoder import Encoder, EncoderConfig

    return Encoder(EncoderConfig(encoder=name)).encode
