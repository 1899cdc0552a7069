"""Rows that say the same in other words: of two whose features are nearer than `threshold`, the one with the smaller id
stays (SemDeDup, arXiv:2303.09540, without its clusters: rows are compared block by block).

    cos(f_i, f_j) >= threshold      f: the frozen encoder's feature, cached on disk (rmkit.features)

`text = "prompt"` reads the last user turn; `text = "all"` asks for the same of the prompt and of every response against
its nearest counterpart, so that one question with other answers is no duplicate. Copies are found more cheaply by
`near_dedup`, which should run first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError
from rmkit.features.encoder import Encoder, EncoderConfig, Text
from rmkit.ids import parse_messages
from rmkit.types import Completion

_BLOCK = 1024

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Config(EncoderConfig):
    threshold: Annotated[float, "cosine from which on two rows say the same"] = 0.95
    text: Annotated[Literal["prompt", "all"], "what is compared"] = "all"

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"semantic_dedup: threshold is a cosine in (0, 1], got {self.threshold}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Keep the first by id of every group; evidence is the kept row's id and the cosine of the prompts."""
    rows = frame.with_row_index("_at").sort("id").select("_at", "id", "prompt", "responses").to_dicts()
    texts: dict[Text, int] = {}
    prompts = [texts.setdefault(prompt_text(row["prompt"]), len(texts)) for row in rows]
    responses = [[texts.setdefault(_response(one), len(texts)) for one in row["responses"] or ()] for row in rows]
    vectors = Encoder(config).features(list(texts)).astype(np.float32) if texts else np.zeros((0, 1), np.float32)
    kept_of: dict[int, tuple[int, float]] = {}
    for i, j, cosine in _near(vectors[prompts] if rows else vectors, config.threshold):
        if i in kept_of or j in kept_of:
            continue
        if config.text == "prompt" or _same_responses(vectors, responses[i], responses[j], config.threshold):
            kept_of[j] = (i, cosine)
    reason: list[str | None] = [None] * len(frame)
    evidence: list[str | None] = [None] * len(frame)
    for j, (i, cosine) in kept_of.items():
        at = rows[j]["_at"]
        reason[at], evidence[at] = "says the same as another row", f"kept {rows[i]['id']}, cosine {cosine:.3f}"
    columns = [pl.Series(one, dtype=pl.String) for one in (reason, evidence)]
    facts = {"threshold": config.threshold, "texts": len(texts)}
    return partition(frame, columns[0], evidence=columns[1], facts=facts)


def prompt_text(prompt: str) -> Text:
    """The last user turn, its end where it is long."""
    messages = parse_messages(prompt)
    turns = [message.content for message in messages if message.role == "user"]
    return Text(turns[-1] if turns else messages[-1].content, "end")


def _response(text: str) -> Text:
    return Text(Completion(parse_messages(text)).text, "start")


def _near(vectors: Floats, threshold: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, cosine) of rows i < j that are near, in the order of i, then j."""
    for start in range(0, len(vectors), _BLOCK):
        cosine = vectors[start : start + _BLOCK] @ vectors[start:].T
        first, second = np.nonzero(np.triu(cosine >= threshold, k=1))
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            yield start + one, start + other, float(cosine[one, other])


def _same_responses(vectors: Floats, one: list[int], other: list[int], threshold: float) -> bool:
    if len(one) != len(other):
        return False
    if not one:
        return True
    cosine: NDArray[Any] = vectors[one] @ vectors[other].T
    return bool(min(cosine.max(axis=0).min(), cosine.max(axis=1).min()) >= threshold)
