"""OpenRLHF's remote reward model (`--reward.remote_url`), version 0.11 and the older form.

    POST {"query": [text], "prompts": [text], "labels": [any]} -> {"rewards", "scores", "extra_logs"}

A label is the gold answer, or a mapping (or JSON of one): `reference`, `rubric`, `components` ({name: number}),
`prompt_id` (its group) and whatever the signal's columns name. `?signal=NAME` or
`?mix=exact_match:1,reward:.2&chain=z_score` choose the signal, `&group_size=8` lets the samples of a group wait for
each other.

`query` is the policy tokenizer's decoding of prompt and reply, special tokens kept; older clients send it alone. With
`prompts` the reply is what follows the prompt, so a policy cannot write turns of its own around it. Empty lists are
answered with empty lists. `scores` are the mix before any shaping, for OpenRLHF's filter. `extra_logs` always has the
same keys.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from rmkit.serve.compat.dialect import DialectRoute, Label, Reading, numbers, score_each, signal_of
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
    signal, group_size = signal_of(request)
    labels = [Label.read(label, group_size=group_size) for label in body.labels or [None] * len(readings)]
    if len(labels) != len(readings):
        raise HttpError(422, f"{len(readings)} queries and {len(labels)} labels; they go together")
    scored = await score_each(request, readings, signal=signal, labels=labels)
    values = numbers(request, [one.shaped for one in scored])
    logs = {
        "rmkit_unscored": [float(one.reward.reward is None) for one in scored],
        "rmkit_prompt_cut": [float(one) for one in cut],
    }
    raw = numbers(request, [one.mixed for one in scored])
    return RewardResponse(rewards=values, scores=raw, extra_logs=logs if values else {})


bare = get_reward  # trainers are also given the address without a path


def _whole(query: str) -> Reading:
    return lambda text: text.read(query)


def _after(prompt: str, query: str, cut: list[bool], number: int) -> Reading:
    def read(text: PolicyText) -> Candidates:
        candidates, cut[number] = text.read_reply(prompt, query)
        return candidates

    return read
