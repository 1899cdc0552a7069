"""A big model whose weights sit in a vLLM-like server, behind the same front: exact, because only ids go over.

Texts are rendered, truncated and turned into ids here, by the artifact's own chat; vLLM gets `input: [[ids]]` at
/classify with `use_activation: false` and gives the raw logits back. The artifact's golden scores are replayed through
the server when it is connected, so other weights, a sigmoid, or another head are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import httpx

from rmkit.chat.encode import Chat, Encoded
from rmkit.errors import ModelError
from rmkit.models import find_model
from rmkit.models.artifact.folder import open_artifact
from rmkit.models.artifact.golden import verify
from rmkit.models.transformer.artifact import stored_chat
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score

TIMEOUT_S = 120.0
BATCH = 256  # texts per request; the server makes its own batches


class VllmModel:
    """A reward model that asks a server. Scores are the classifier's raw logits, as the artifact's own would be."""

    problem_type = "regression"  # as in the artifact's config: the dialects ask

    def __init__(self, info: ModelInfo, chat: Chat, url: str) -> None:
        self.info = info
        self.chat = chat
        self._url = url.rstrip("/") + "/classify"
        self._client = httpx.Client(timeout=TIMEOUT_S)

    @classmethod
    def connect(cls, name: str, url: str) -> VllmModel:
        """The model behind `url`, held against the artifact `name`. Raises ModelError where it is another one."""
        artifact = open_artifact(find_model(name))
        if artifact.card["config"].get("truncation") is None:
            raise ModelError(f"{artifact.folder} is no explicit model: it has no truncation policy to render with")
        model = cls(artifact.info, stored_chat(artifact.folder, artifact.card["config"]), url)
        verify(artifact, model)
        return model

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] logits. A server that does not answer leaves all of them unscored, with the reason."""
        encoded = [self.chat.encode_candidates(item) for item in batch]
        ids = [list(one.ids) for row in encoded for one in row if isinstance(one, Encoded)]
        try:
            logits = iter(self._logits(ids))
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            failed = Score.failed(f"the model's server gave no scores ({type(error).__name__})")
            return [[failed] * len(item.completions) for item in batch]
        return [
            [_score(one, next(logits)) if isinstance(one, Encoded) else Score.failed(str(one)) for one in row]
            for row in encoded
        ]

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return self.score(batch)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    def _logits(self, ids: Sequence[list[int]]) -> list[float]:
        results: list[float] = []
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            answer = self._client.post(self._url, json={"input": part, "use_activation": False})
            answer.raise_for_status()
            rows: list[dict[str, Any]] = sorted(answer.json()["data"], key=lambda row: row["index"])
            if len(rows) != len(part):
                raise ValueError(f"{len(rows)} rows for {len(part)} texts")
            results += [float(row["probs"][-1]) for row in rows]
        return results


def _score(encoded: Encoded, value: float) -> Score:
    if not math.isfinite(value):
        return Score.failed(f"the model gave {value}, not a finite number")
    return Score(value, truncated=encoded.prompt_truncated or encoded.response_truncated)
