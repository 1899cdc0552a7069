"""NeMo-Gym's resources server: /verify scores a rollout in the form of OpenAI's Responses API.

    POST /verify {"responses_create_params": {"input": ...}, "response": {"output": [...]}} -> the body + "reward"

Instructions and inputs are the prompt; the output's messages, tool calls and their results are the completion;
reasoning is not scored. Aspects become `reward_components`. A rollout that cannot be scored comes back as NeMo-Gym
tags a failed judge (`_ng_failure_class`, kept out of its metrics), with `mask_sample` for later versions: the reward of
0 in it is no measurement.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from rmkit.errors import DataError
from rmkit.serve.compat.dialect import DialectRoute, answer, one_reply, score_each
from rmkit.serve.compat.policy_readers import PolicyText
from rmkit.types import Candidates, Message, Score

router = APIRouter(route_class=DialectRoute, tags=["nemo-gym"])

LARGEST = 1e150  # beyond it a spread overflows
_TEXT_PARTS = ("input_text", "output_text", "text", "refusal")


class VerifyRequest(BaseModel):
    """The rollout; whatever else it holds is sent back as it came."""

    model_config = ConfigDict(extra="allow")

    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class AggregateRequest(BaseModel):
    verify_responses: list[dict[str, Any]]


@router.post("/verify", summary="NeMo-Gym reward of a rollout")
async def verify(request: Request, body: VerifyRequest) -> Response:
    def read(_: PolicyText) -> Candidates:
        return rollout(body.responses_create_params, body.response)

    score = (await score_each(request, [read]))[0].score
    return answer({**body.model_dump(), **_verdict(score)})


@router.post("/seed_session", summary="Nothing to prepare")
async def seed_session() -> dict[str, Any]:
    return {}


@router.post("/aggregate_metrics", summary="Mean and spread of rewards, failures apart")
async def aggregate_metrics(body: AggregateRequest) -> Response:
    """Over all rollouts and per task (`_ng_task_index`); tagged failures are counted, never averaged."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in body.verify_responses:
        groups.setdefault(str(row.get("_ng_task_index", 0)), []).append(row)
    tasks = [{"_ng_task_index": rows[0].get("_ng_task_index", 0), **_statistics(rows)} for rows in groups.values()]
    overall = _statistics(body.verify_responses)
    key = {name: overall[name] for name in ("mean/reward",) if name in overall}
    return answer({"group_level_metrics": tasks, "agent_metrics": overall, "key_metrics": key})


def _verdict(score: Score) -> dict[str, Any]:
    if score.unscored is not None:
        return {
            "reward": 0.0,
            "mask_sample": True,
            "_ng_failure_class": "judge_failed",
            "_ng_failure_judge_error": score.unscored,
        }
    components = {name: value for name, value in score.aspects.items() if math.isfinite(value)}
    return {"reward": score.value} | ({"reward_components": components} if components else {})


def rollout(created: Mapping[str, Any], response: Mapping[str, Any]) -> Candidates:
    """The conversation of a rollout. Raises DataError for what is no text and no tool call."""
    instructions = created.get("instructions")
    prompt = [Message("system", instructions)] if isinstance(instructions, str) and instructions else []
    inputs = created.get("input")
    prompt += [Message("user", inputs)] if isinstance(inputs, str) else list(_messages(inputs))
    reply = list(_messages(response.get("output")))
    if not any(message.role == "assistant" for message in reply):
        raise DataError("the response holds no assistant message")
    return one_reply(prompt, reply)


def _messages(items: Any) -> Iterator[Message]:
    if not isinstance(items, list):
        raise DataError("input and output must be lists of items (input may be a text)")
    for item in items:
        if not isinstance(item, dict):
            raise DataError("an item of input or output is no object")
        match item.get("type", "message"):
            case "message":
                yield _message(item)
            case "function_call":
                function = {"name": str(item.get("name", "")), "arguments": item.get("arguments", "")}
                call = {"id": str(item.get("call_id", "")), "type": "function", "function": function}
                yield Message("assistant", "", tool_calls=(call,))
            case "function_call_output":
                yield Message("tool", _text(item.get("output")), tool_call_id=str(item.get("call_id", "")))
            case "reasoning":
                continue
            case other:
                raise DataError(f"an item of type {other!r} cannot be scored")


def _message(item: Mapping[str, Any]) -> Message:
    role = item.get("role")
    if role == "developer":
        role = "system"
    if role not in ("system", "user", "assistant"):
        raise DataError(f"unknown role {role!r}")
    return Message(role, _text(item.get("content")))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else [content]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
            raise DataError("only text can be scored")
        text = part.get("refusal") if part["type"] == "refusal" else part.get("text")
        if not isinstance(text, str):
            raise DataError("a text part holds no text")
        texts.append(text)
    return "\n".join(texts)


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    kept_rows = [row["reward"] for row in rows if "_ng_failure_class" not in row and _is_number(row.get("reward"))]
    by_key: dict[str, float] = {"rollouts": len(rows), "failures": len(rows) - len(kept_rows)}
    if kept_rows:
        spread = statistics.stdev(kept_rows) if len(kept_rows) > 1 else 0.0
        by_key |= {"mean/reward": statistics.fmean(kept_rows), "std/reward": spread}
        by_key |= {"min/reward": min(kept_rows), "max/reward": max(kept_rows)}
    return by_key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
