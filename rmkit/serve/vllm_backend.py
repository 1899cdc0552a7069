"""A big model whose weights sit in a vLLM-like server, behind the same front: exact, because only ids go over.

Texts are rendered, truncated and turned into ids here, by the artifact's own chat; vLLM gets `input: [[ids]]` at
/classify with `use_activation: false` and gives the raw logits back. The artifact's golden scores are replayed through
the server when it is connected, so other weights, a sigmoid, or another head are refused.

Of adopted models those of the reader `column` will do, whose head the server runs. It reads the last token: where the
model's own rule reads one before it, the ids behind that are not sent, which is the same to a causal model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from rmkit.chat.encode import Chat, Encoded
from rmkit.errors import ModelError
from rmkit.models import find_model
from rmkit.models.adopted.column import number_of
from rmkit.models.adopted.headed import open_chat, scaling
from rmkit.models.adopted.model import profile_in, source_of
from rmkit.models.adopted.profile import Profile
from rmkit.models.adopted.source import Source
from rmkit.models.artifact.folder import Artifact, open_artifact
from rmkit.models.artifact.golden import verify
from rmkit.models.transformer.artifact import stored_chat
from rmkit.models.transformer.process import p_first_right
from rmkit.types import Candidates, Comparison, ModelInfo, Score, bradley_terry, compare_by_score, sigmoid

TIMEOUT_S = 120.0
BATCH = 256  # texts per request; the server makes its own batches


@dataclass(frozen=True, slots=True)
class Reading:
    """What goes to the server of a text, what its outputs mean, and how two scores compare."""

    number: Callable[[list[float]], float] = lambda outputs: outputs[-1]
    ids: Callable[[Encoded], list[int]] = lambda encoded: list(encoded.ids)
    p_first: Callable[[float, float], float] = bradley_terry


class VllmModel:
    """A reward model that asks a server. Scores are the classifier's raw logits, as the artifact's own would be."""

    problem_type = "regression"  # as in the artifact's config: the dialects ask

    def __init__(self, info: ModelInfo, chat: Chat, url: str, *, reading: Reading | None = None) -> None:
        self.info = info
        self.chat = chat
        self.reading = reading or Reading()
        self._url = url.rstrip("/") + "/classify"
        self._client = httpx.Client(timeout=TIMEOUT_S)

    @classmethod
    def connect(cls, name: str, url: str) -> VllmModel:
        """The model behind `url`, held against the artifact `name`. Raises ModelError where it is another one."""
        artifact = open_artifact(find_model(name))
        if artifact.card["model"] == "adopted":
            source, profile = source_of(artifact), profile_in(artifact)
            reading = _adopted_reading(artifact, source, profile)
            adopted = cls(artifact.info, open_chat(source, profile), url, reading=reading)
            verify(artifact, adopted)
            return adopted
        if artifact.card["config"].get("truncation") is None:
            raise ModelError(f"{artifact.folder} is no explicit model: it has no truncation policy to render with")
        model = cls(artifact.info, stored_chat(artifact.folder, artifact.card["config"]), url)
        verify(artifact, model)
        return model

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N] logits. A server that does not answer leaves all of them unscored, with the reason."""
        encoded = [self.chat.encode_candidates(item) for item in batch]
        ids = [self.reading.ids(one) for row in encoded for one in row if isinstance(one, Encoded)]
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
        return compare_by_score(self.score, batch, p_first=self.reading.p_first)

    def _logits(self, ids: Sequence[list[int]]) -> list[float]:
        results: list[float] = []
        for at in range(0, len(ids), BATCH):
            part = ids[at : at + BATCH]
            answer = self._client.post(self._url, json={"input": part, "use_activation": False})
            answer.raise_for_status()
            rows: list[dict[str, Any]] = sorted(answer.json()["data"], key=lambda row: row["index"])
            if len(rows) != len(part):
                raise ValueError(f"{len(rows)} rows for {len(part)} texts")
            results += [self.reading.number([float(one) for one in row["probs"]]) for row in rows]
        return results


def _score(encoded: Encoded, value: float) -> Score:
    if not math.isfinite(value):
        return Score.failed(f"the model gave {value}, not a finite number")
    return Score(value, truncated=encoded.prompt_truncated or encoded.response_truncated)


def _adopted_reading(artifact: Artifact, source: Source, profile: Profile) -> Reading:
    """Raises ModelError for a model whose number a server that classifies cannot give."""
    if profile.read.kind != "column" or profile.in_steps or profile.text.segments != 1:
        raise ModelError(
            f"{artifact.folder}: a server that classifies gives one row of numbers a text; this model is read by "
            f"{profile.read.kind}{' at every step' if profile.in_steps else ''}, so serve it without --backend"
        )
    number, scaled, temperature = number_of(profile.read), scaling(profile, source), float(artifact.card["temperature"])
    bounded = artifact.info.scale == "probability"
    return Reading(
        number=lambda outputs: scaled(number([outputs])),
        ids=lambda encoded: list(encoded.ids[: encoded.step_index[-1] + 1]),
        p_first=p_first_right if bounded else lambda first, second: sigmoid((first - second) / temperature),
    )
