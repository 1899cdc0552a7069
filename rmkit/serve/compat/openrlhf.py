"""OpenRLHF's remote reward model (`--reward.remote_url`), version 0.11 and the older form.

    POST {"query": [text], "prompts": [text], "labels": [any]} -> {"rewards", "scores", "extra_logs"}

`query` is the policy tokenizer's decoding of prompt and reply, special tokens kept; older clients send it alone. With
`prompts` the reply is what follows the prompt, so a policy cannot write turns of its own around it. Empty lists are
answered with empty lists. `scores` are the model's own, before any shaping. `extra_logs` always has the same keys.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from rmkit.serve.compat.dialect import DialectRoute, Reading, numbers, score_each
from rmkit.serve.compat.policy_readers import PolicyText
from rmkit.serve.http.problems import HttpError
from rmkit.types import Candidates

router = APIRouter(route_class=DialectRoute, tags=["openrlhf"])


class RewardRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"query": [], "prompts": [], "labels": []}]})

    query: Annotated[list[str], Field(description="prompt and reply as the policy's tokenizer decodes them")]
    prompts: list[str] | None = None
    labels: list[Any] | None = None


class RewardResponse(BaseModel):
    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


@router.post("/get_reward", summary="OpenRLHF remote reward model")
async def get_reward(request: Request, body: RewardRequest) -> RewardResponse:
    prompts = body.prompts
    if prompts is not None and len(prompts) != len(body.query):
        raise HttpError(422, f"{len(body.query)} queries and {len(prompts)} prompts; they go together")
    cut: list[bool] = [False] * len(body.query)
    if prompts is None:
        readings: list[Reading] = [_whole(query) for query in body.query]
    else:
        readings = [_after(p, q, cut, n) for n, (p, q) in enumerate(zip(prompts, body.query, strict=True))]
    scored = [one.score for one in await score_each(request, readings)]
    values = numbers(request, scored)
    logs = {
        "rmkit_unscored": [float(one.unscored is not None) for one in scored],
        "rmkit_prompt_cut": [float(one) for one in cut],
    }
    return RewardResponse(rewards=values, scores=values, extra_logs=logs if values else {})


bare = get_reward  # trainers are also given the address without a path


def _whole(query: str) -> Reading:
    return lambda text: text.read(query)


def _after(prompt: str, query: str, cut: list[bool], number: int) -> Reading:
    def read(text: PolicyText) -> Candidates:
        candidates, cut[number] = text.read_reply(prompt, query)
        return candidates

    return read
