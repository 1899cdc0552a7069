"""vLLM's pooling endpoints: /classify, /pooling, /score and /v1/score.

As in vLLM, a model with one label answers with the sigmoid of its logit unless `use_activation` is false, or its saved
config says `problem_type = "regression"` (what rmkit trains and exports says so, and gives the raw logit). Models of
other scales give their own numbers. The older name `activation` is understood; where both are sent they must agree.

Text is read back into messages and rendered by the model's own template, so what is scored is never the markers of
another one. Options that would change what is scored (truncation, another template, normalization) are refused. Token
counts in `usage` are estimates.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rmkit.errors import DataError
from rmkit.serve.compat.classifier_input import Inputs, message_reading, plain_reading, text_readings
from rmkit.serve.compat.dialect import DialectRoute, Reading, Scored, answer, numbers, score_each
from rmkit.serve.compat.served_model import is_regression
from rmkit.serve.http.native import engine_of
from rmkit.serve.http.problems import HttpError
from rmkit.types import RewardModel, Score, sigmoid

_REFUSED = {
    "normalize": "is not a parameter of this endpoint",
    "chat_template": "cannot be replaced: a score belongs to the model's own template",
    "chat_template_kwargs": "cannot be changed: a score belongs to the model's own template",
    "truncate_prompt_tokens": "cannot be changed: the truncation policy belongs to the model",
    "add_generation_prompt": "must be false: a reply is scored, not the place for one",
    "continue_final_message": "must be false: a finished reply is scored",
}


class VllmRoute(DialectRoute):
    @staticmethod
    def problem(status: int, message: str) -> Mapping[str, object]:
        kind = "NotFoundError" if status == 404 else "BadRequestError" if status < 500 else "InternalServerError"
        return {"error": {"message": message, "type": kind, "param": None, "code": status}}


router = APIRouter(route_class=VllmRoute, tags=["vllm"])


class _BaseRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str | None = None
    use_activation: bool | None = None
    activation: bool | None = Field(default=None, description="older name of use_activation")

    def refuse_what_changes_the_text(self) -> None:
        for name, why in _REFUSED.items():
            if (value := (self.model_extra or {}).get(name)) and value != -1:
                raise HttpError(400, f"{name} {why}")


class ClassifyRequest(_BaseRequest):
    """`input` (text, texts, token ids) or `messages`."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Hello"}]}]}
    )

    input: Inputs | None = None
    messages: list[dict[str, Any]] | None = None

    def readings(self, model: RewardModel) -> list[Reading]:
        self.refuse_what_changes_the_text()
        if (self.input is None) == (self.messages is None):
            raise HttpError(400, "exactly one of input and messages is needed")
        if self.messages is not None:
            return [message_reading(self.messages)]
        return text_readings(self.input, model)  # type: ignore[arg-type]


class PoolingRequest(ClassifyRequest):
    task: str | None = None
    encoding_format: str = "float"


class ScoreRequest(_BaseRequest):
    """`text_1` (or queries, data_1) is the prompt, `text_2` (or documents, items, data_2) the reply or replies."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    items: str | list[str] | None = None
    data_1: str | list[str] | None = None
    data_2: str | list[str] | None = None

    def pairs(self) -> list[tuple[str, str]]:
        self.refuse_what_changes_the_text()
        prompts = _only([self.text_1, self.queries, self.data_1], "text_1, queries and data_1")
        replies = _only([self.text_2, self.documents, self.items, self.data_2], "text_2, documents, items and data_2")
        if len(prompts) == 1:
            prompts = prompts * len(replies)
        if len(prompts) != len(replies):
            raise HttpError(400, f"{len(prompts)} first texts and {len(replies)} second ones do not go together")
        return list(zip(prompts, replies, strict=True))


def _only(inputs: Sequence[str | list[str] | None], names: str) -> list[str]:
    result = [value for value in inputs if value is not None]
    if len(result) != 1:
        raise HttpError(400, f"exactly one of {names} is needed")
    texts = [result[0]] if isinstance(result[0], str) else result[0]
    if not texts:
        raise HttpError(400, "the input is empty")
    return texts


@router.post("/classify", summary="vLLM classification")
async def classify(request: Request, body: ClassifyRequest) -> Response:
    model = engine_of(request).model(body.model)
    scored = await score_each(request, body.readings(model), model=body.model)
    values = _activated(request, body, model, scored)
    data = [{"index": n, "label": "LABEL_0", "probs": [p], "num_classes": 1} for n, p in enumerate(values)]
    return _listed(request, body, "classify", data, scored)


@router.post("/pooling", summary="vLLM pooling: the reward, or one number per step")
async def pooling(request: Request, body: PoolingRequest) -> Response:
    if body.encoding_format not in ("float", "base64"):
        raise HttpError(400, f"encoding_format must be float or base64, got {body.encoding_format!r}")
    model = engine_of(request).model(body.model)
    scored = await score_each(request, body.readings(model), model=body.model)
    match body.task:
        case None | "classify":
            rows: list[Any] = [[value] for value in _activated(request, body, model, scored)]
        case "token_classify":
            rows = [_steps(one.score) for one in scored]
        case _:
            raise HttpError(400, f"task must be classify or token_classify, got {body.task!r}")
    if body.encoding_format == "base64":
        rows = [_base64(row) for row in rows]
    data = [{"index": number, "object": "pooling", "data": row} for number, row in enumerate(rows)]
    return _listed(request, body, "pool", data, scored)


@router.post("/score", summary="vLLM scoring of prompt and reply")
@router.post("/v1/score", summary="vLLM scoring of prompt and reply")
async def score(request: Request, body: ScoreRequest) -> Response:
    model = engine_of(request).model(body.model)
    readings = [plain_reading(prompt, reply) for prompt, reply in body.pairs()]
    scored = await score_each(request, readings, model=body.model)
    values = _activated(request, body, model, scored)
    data = [{"index": number, "object": "score", "score": value} for number, value in enumerate(values)]
    return _listed(request, body, "score", data, scored)


def _activated(request: Request, body: _BaseRequest, model: RewardModel, scored: Sequence[Scored]) -> list[float]:
    if body.use_activation is not None and body.activation not in (None, body.use_activation):
        raise HttpError(400, "use_activation and activation contradict each other")
    target = body.activation if body.use_activation is None else body.use_activation
    logits = model.info.scale in ("logit", "log_ratio", "win_logit")
    squash = logits and (target if target is not None else not is_regression(model))
    result = [_squashed(one.score) if squash else one.score for one in scored]
    return numbers(request, result)


def _squashed(score: Score) -> Score:
    return score if score.unscored is not None else Score(sigmoid(score.value))


def _steps(score: Score) -> list[list[float]]:
    if score.unscored is not None:
        raise DataError(f"cannot be scored: {score.unscored}")
    if not score.steps:
        raise HttpError(400, "this model gives no scores of steps; use task classify")
    if (missing := next((n for n, value in enumerate(score.steps) if not math.isfinite(value)), None)) is not None:
        raise DataError(f"step {missing} of {len(score.steps)} has no score")
    return [[value] for value in score.steps]


def _base64(row: Sequence[Any]) -> str:
    flat = [value for part in row for value in (part if isinstance(part, list) else [part])]
    try:
        return base64.b64encode(struct.pack(f"<{len(flat)}f", *flat)).decode()
    except OverflowError as error:
        raise DataError(
            "a score beyond 3.4e38 does not fit the 32 bits of base64; ask for encoding_format float"
        ) from error


def _listed(
    request: Request, requests: _BaseRequest, prefix: str, data: Sequence[Mapping[str, Any]], scored: Sequence[Scored]
) -> Response:
    tokens = sum(one.tokens for one in scored)
    body = {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": requests.model or engine_of(request).default,
        "data": list(data),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }
    return answer(body)
