"""A reward service as a reward model: `RewardClient("http://HOST:PORT")` scores and compares like a local one.

What may pass (no connection, a timeout, 429, 5xx) is tried again, see `service_http`. What is refused for good (401,
403, 404) raises RewardServiceError. A request of several items that is refused for what is in it (400, 413, 422) is
sent again in parts, so that what is bad is unscored alone. Scores of a pointwise model are kept for a while.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rmkit.errors import DataError, UsageError
from rmkit.ids import canonical_json, content_hash, messages_json
from rmkit.serve.clients.address import address
from rmkit.serve.clients.score_cache import ScoreCache
from rmkit.serve.clients.service_http import Patience, RewardServiceError, ServiceHttp
from rmkit.types import Candidates, Comparison, Completion, ModelInfo, Score

Result = TypeVar("Result")
BAD_ITEMS = (400, 413, 422)
REQUEST_COMPLETIONS = 256
SWAPS = 3  # so often a batch is asked that a hot swap of the model went through


class RewardClient:
    """The reward model behind a URL (see `address` for tokens and model names). Thread-safe, picklable, fork-safe.

    `cache_size` scores are kept for at most `cache_age_s`; 0 keeps none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        model: str | None = None,
        patience: Patience | None = None,
        cache_size: int = 4096,
        cache_age_s: float = 300.0,
    ) -> None:
        self.service = ServiceHttp(address(url, token=token, model=model), patience or Patience())
        self._cache = ScoreCache(cache_size, max_age_s=cache_age_s)
        self._info: ModelInfo | None = None

    def __repr__(self) -> str:
        return f"RewardClient({self.service.at.url!r}, model={self.service.at.model!r})"

    def __getstate__(self) -> dict[str, object]:
        return {"service": self.service, "cache": (self._cache.size, self._cache.max_age_s)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        size, max_age_s = state["cache"]
        self.service, self._cache, self._info = state["service"], ScoreCache(size, max_age_s=max_age_s), None

    @property
    def info(self) -> ModelInfo:
        """What a number from this model means: asked once, and renewed by every answer."""
        if self._info is None:
            summary = self.service.ask("/rmkit/v1/models")
            target = self.service.at.model or summary["default"]
            result = [model for model in summary["models"] if model["name"] == target]
            if not result:
                names = ", ".join(model["name"] for model in summary["models"])
                raise RewardServiceError(f"{self.service.at.url} serves no model {target!r}; it serves {names}", 404)
            self._info = _info(result[0])
        return self._info

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P] Candidates -> [P][N] Score, in order, all of one model: a batch across a hot swap is asked again.

        Raises RewardServiceError where the service cannot be asked, or swaps models faster than it answers.
        """
        keys = [[_key(item, completion) for completion in item.completions] for item in batch]
        return self._by_one_model(lambda models: self._score_once(batch, keys, models))

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """[P] Candidates of two -> [P] Comparison, in order. Raises as `score`."""
        chunks = list(_chunks(list(batch)))
        return self._by_one_model(
            lambda models: [answer for chunk in chunks for answer in self._comparisons(chunk, models)]
        )

    def close(self) -> None:
        """Give the connections back."""
        self.service.close()

    def _by_one_model(self, ask: Callable[[set[str]], list[Result]]) -> list[Result]:
        """What `ask` gives, which adds the fingerprint of every model that it has an answer of."""
        for _ in range(SWAPS):
            models: set[str] = set()
            answers = ask(models)
            if len(models) <= 1:
                return answers
        raise RewardServiceError(f"{self.service.at.url} swapped models in each of {SWAPS} tries of one batch")

    def _score_once(
        self, batch: Sequence[Candidates], keys: Sequence[Sequence[str]], models: set[str]
    ) -> list[list[Score]]:
        cached = [[self._cache.get(key) for key in row] for row in keys]
        models |= {hit.fingerprint for row in cached for hit in row if hit is not None}
        parts = [
            replace(item, completions=tuple(c for c, hit in zip(item.completions, row, strict=True) if hit is None))
            for item, row in zip(batch, cached, strict=True)
            if None in row
        ]
        answers = iter([score for chunk in _chunks(parts) for row in self._scores(chunk, models) for score in row])
        scores = [[next(answers) if hit is None else hit.score for hit in row] for row in cached]
        if self._info is not None and self._info.pointwise and len(models) == 1:
            [fingerprint] = models
            for key_row, hits, row in zip(keys, cached, scores, strict=True):
                for key, hit, score in zip(key_row, hits, row, strict=True):
                    if hit is None:  # an older one keeps its age
                        self._cache.put(key, score, fingerprint=fingerprint)
        elif len(models) > 1:
            self._cache.clear()
        return scores

    def _scores(self, items: Sequence[Candidates], models: set[str]) -> list[list[Score]]:
        def failed(item: Candidates, why: str) -> list[Score]:
            if len(item.completions) == 1 or not self.info.pointwise:
                return [Score.failed(why)] * len(item.completions)
            return [self._scores([replace(item, completions=(one,))], models)[0][0] for one in item.completions]

        return self._halved("score", "scores", items, models, lambda row: [_score(one) for one in row], failed)

    def _comparisons(self, items: Sequence[Candidates], models: set[str]) -> list[Comparison]:
        def failed(_: Candidates, why: str) -> Comparison:
            return Comparison.failed(why)

        return self._halved("compare", "comparisons", items, models, _comparison, failed)

    def _halved(
        self,
        endpoint: str,
        field: str,
        items: Sequence[Candidates],
        models: set[str],
        read: Callable[[Any], Result],
        failed: Callable[[Candidates, str], Result],
    ) -> list[Result]:
        """An answer per item; where the request is refused for what is in it, its halves are asked apart."""
        try:
            body = {"model": self.service.at.model, "items": [_written(item) for item in items]}
            summary = self.service.ask(f"/rmkit/v1/{endpoint}", body)
            if len(summary[field]) != len(items):
                raise RewardServiceError(
                    f"{self.service.at.url} gave {len(summary[field])} answers to {len(items)} items"
                )
            self._info = _info(summary["model"])
            models.add(self._info.fingerprint)
            return [read(one) for one in summary[field]]
        except (RewardServiceError, DataError) as error:
            if isinstance(error, RewardServiceError) and error.status not in BAD_ITEMS:
                raise
            if len(items) == 1:
                return [failed(items[0], str(error))]
        half = len(items) // 2
        return [
            answer
            for part in (items[:half], items[half:])
            for answer in self._halved(endpoint, field, part, models, read, failed)
        ]


def client_named(url: str) -> RewardClient:
    """The client for a URL that stands where a model's name does. Raises UsageError where it carries a token.

    Names are written into results; a token belongs into RMKIT_REWARD_TOKEN.
    """
    if urlsplit(url).path.startswith("/t/") or "@" in urlsplit(url).netloc:
        raise UsageError("a model's name is written into results: set RMKIT_REWARD_TOKEN and leave the token out of it")
    return RewardClient(url)


def _chunks(items: Sequence[Candidates]) -> Iterator[list[Candidates]]:
    """Runs of items with at most REQUEST_COMPLETIONS completions; a larger group stays whole."""
    chunk: list[Candidates] = []
    size = 0
    for item in items:
        if chunk and size + len(item.completions) > REQUEST_COMPLETIONS:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.completions)
    if chunk:
        yield chunk


def _written(item: Candidates) -> dict[str, object]:
    """The item as the native API reads it. Raises DataError for text that is no valid Unicode."""
    return {
        "prompt": json.loads(messages_json(item.prompt)),
        "completions": [_written_completion(completion) for completion in item.completions],
    } | _facts(item)


def _written_completion(completion: Completion) -> dict[str, object]:
    document: dict[str, Any] = {"messages": json.loads(messages_json(completion.messages))}
    if completion.source is not None:
        document["source"] = completion.source
    if completion.step_ends:
        document["step_ends"] = list(completion.step_ends)
    return document


def _key(item: Candidates, completion: Completion) -> str:
    try:
        texts = [messages_json(item.prompt), messages_json(completion.messages), str(completion.step_ends)]
        texts += [canonical_json(value) for value in _facts(item).items()]
    except DataError:
        return ""  # never cached: such an item cannot be sent
    return content_hash("\n".join(texts))


def _facts(item: Candidates) -> dict[str, object]:
    facts = {"tools": list(item.tools), "reference": item.reference, "rubric": list(item.rubric)}
    return {name: value for name, value in facts.items() if value}


def _info(payload: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(payload["name"], payload["kind"], payload["scale"], payload["pointwise"], payload["fingerprint"])


def _score(payload: Mapping[str, Any]) -> Score:
    value = payload.get("value")
    if value is None:
        return Score.failed(payload.get("unscored") or "the service gave no value")
    return Score(
        value=float(value),
        std=payload.get("std"),
        steps=tuple(float("nan") if step is None else step for step in payload.get("steps") or ()),
        aspects={name: aspect for name, aspect in (payload.get("aspects") or {}).items() if aspect is not None},
        rationale=payload.get("rationale"),
        normalized=payload.get("normalized"),
        truncated=bool(payload.get("truncated")),
    )


def _comparison(payload: Mapping[str, Any]) -> Comparison:
    if payload.get("p_first") is None:
        return Comparison.failed(payload.get("unscored") or "the service gave no probability")
    return Comparison(
        p_first=float(payload["p_first"]), swap_gap=payload.get("swap_gap"), rationale=payload.get("rationale")
    )
