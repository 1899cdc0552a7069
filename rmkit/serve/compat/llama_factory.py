"""LLaMA-Factory's PPO with `reward_model_type: api`: POST {"model", "messages": [text]} -> {"scores": [float]}.

Each text is the policy's whole conversation, special tokens kept. The client sends a constant model name and neither
timeout nor token, so the default model answers and the token goes into the URL (/t/TOKEN/llama-factory).
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from rmkit.serve.compat.dialect import DialectRoute, Reading, numbers, score_each, signal_of

router = APIRouter(route_class=DialectRoute, tags=["llama-factory"])


class ScoresRequest(BaseModel):
    messages: list[str]
    model: str | None = None


class ScoresResponse(BaseModel):
    scores: list[float]


@router.post("/v1/score/evaluation", summary="LLaMA-Factory reward API")
async def evaluation(request: Request, body: ScoresRequest) -> ScoresResponse:
    signal, _ = signal_of(request)
    scored = await score_each(request, [_whole(text) for text in body.messages], signal=signal)
    return ScoresResponse(scores=numbers(request, [one.shaped for one in scored]))


bare = evaluation  # trainers are also given the address without a path


def _whole(text: str) -> Reading:
    return lambda reader: reader.read(text)
