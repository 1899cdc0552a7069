"""SGLang's native /classify and the /v1/embeddings that verl asks for a reward: always the raw logit.

One text gives one object, a list of texts a list. SGLang's own /v1/classify applies a softmax, which makes every
one-label reward 1.0; it is left out on purpose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rmkit.serve.compat.classifier_input import Inputs, TokenIds, text_readings
from rmkit.serve.compat.dialect import DialectRoute, answer, numbers, score_each
from rmkit.serve.http.native import engine_of
from rmkit.serve.http.problems import HttpError


class SglangRoute(DialectRoute):
    @staticmethod
    def problem(status: int, message: str) -> Mapping[str, object]:
        return {"error": {"message": message}}


router = APIRouter(route_class=SglangRoute, tags=["sglang"])


class ClassifyRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: str | list[str] | None = None
    input_ids: TokenIds | list[TokenIds] | None = None
    rid: str | list[str] | None = None

    def inputs(self) -> Inputs:
        if (self.text is None) == (self.input_ids is None):
            raise HttpError(400, "exactly one of text and input_ids is needed")
        return self.input_ids if self.text is None else self.text  # type: ignore[return-value]


class EmbeddingsRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    input: Annotated[Inputs, Field(description="text, texts or token ids")]
    model: str | None = None


@router.post("/classify", summary="SGLang classification: the raw logit")
@router.put("/classify", summary="SGLang classification: the raw logit")
async def classify(request: Request, body: ClassifyRequest) -> Response:
    began, inputs = time.monotonic(), body.inputs()
    scored = await score_each(request, text_readings(inputs, engine_of(request).model(None)))
    values = numbers(request, [one.score for one in scored])
    seconds = time.monotonic() - began
    rows = [
        {
            "embedding": [value],
            "meta_info": {"id": _rid(request, body, n), "prompt_tokens": one.tokens, "e2e_latency": seconds},
        }
        for n, (value, one) in enumerate(zip(values, scored, strict=True))
    ]
    many = bool(inputs) and not isinstance(inputs, str) and not isinstance(inputs[0], int)
    return answer(rows if many else rows[0])


@router.post("/v1/embeddings", summary="The reward as an embedding of one number")
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    readings = text_readings(body.input, engine_of(request).model(body.model))
    scored = await score_each(request, readings, model=body.model)
    values = numbers(request, [one.score for one in scored])
    tokens = sum(one.tokens for one in scored)
    data = [{"object": "embedding", "embedding": [value], "index": n} for n, value in enumerate(values)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    name = body.model or engine_of(request).default
    return answer({"object": "list", "data": data, "model": name, "usage": usage})


def _rid(request: Request, body: ClassifyRequest, number: int) -> str:
    if isinstance(body.rid, str):
        return body.rid
    if body.rid and number < len(body.rid):
        return body.rid[number]
    return f"{request.scope.get('rmkit.request_id', '')}-{number}"
