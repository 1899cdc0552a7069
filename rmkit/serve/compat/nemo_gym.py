"""NeMo-Gym's resources server: /verify scores a rollout in the form of OpenAI's Responses API.

    POST /verify {"responses_create_params": {"input": ...}, "response": {"output": [...]}} -> the body + "reward"

Instructions, inputs and tools are the prompt; the output's messages, reasoning, tool calls and their results are the
completion. What else the body holds is the dataset's row, where a signal finds gold answers. The weighted components of
a plain sum become `reward_components`: NeMo-RL refuses components that do not sum to the reward, so nothing else is
sent there. A rollout that cannot be scored comes back as NeMo-Gym tags a failed judge (`_ng_failure_class`, kept out of
its metrics), with `mask_sample` for later versions: the reward of 0 in it is no measurement.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from rmkit.chat.reader import read_candidates, read_conversation
from rmkit.errors import DataError
from rmkit.serve.compat.dialect import DialectRoute, Label, answer, score_each, signal_of
from rmkit.serve.compat.policy_readers import PolicyText
from rmkit.serve.rewards.request import Reward
from rmkit.signal.signal import Signal
from rmkit.types import Candidates, Message

router = APIRouter(route_class=DialectRoute, tags=["nemo-gym"])

LARGEST = 1e150  # beyond it a spread overflows


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

    signal, group_size = signal_of(request)
    label = Label.read(body.model_extra or {}, group_size=group_size)
    reward = (await score_each(request, [read], signal=signal, labels=[label]))[0].reward
    return answer({**body.model_dump(), **_verdict(reward, signal)})


@router.post("/seed_session", summary="Nothing to prepare")
async def seed_session() -> dict[str, object]:
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


def _verdict(reward: Reward, signal: Signal | None) -> dict[str, object]:
    if reward.reward is None:
        return {
            "reward": 0.0,
            "mask_sample": True,
            "_ng_failure_class": "judge_failed",
            "_ng_failure_judge_error": reward.unscored,
        }
    if signal is None or signal.chain or signal.gates or signal.combine != "sum":
        return {"reward": reward.reward}
    parts = {name: weight * reward.components[name] for name, weight in signal.weights.items()}
    return {"reward": reward.reward, "reward_components": parts}


def rollout(created: Mapping[str, Any], response: Mapping[str, Any]) -> Candidates:
    """The conversation of a rollout. Raises DataError for what is no text and no tool call."""
    instructions, inputs, output = created.get("instructions"), created.get("input"), response.get("output")
    if not isinstance(inputs, str | list) or not isinstance(output, list):
        raise DataError("input and output must be lists of items (input may be a text)")
    system = [Message("system", instructions)] if isinstance(instructions, str) and instructions else []
    prompt = (*system, *read_conversation(inputs, role="user"))
    return read_candidates(prompt, [output], tools=created.get("tools") or ())


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    rewards = [row["reward"] for row in rows if "_ng_failure_class" not in row and _is_number(row.get("reward"))]
    by_key: dict[str, float] = {"rollouts": len(rows), "failures": len(rows) - len(rewards)}
    if rewards:
        spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
        by_key |= {"mean/reward": statistics.fmean(rewards), "std/reward": spread}
        by_key |= {"min/reward": min(rewards), "max/reward": max(rewards)}
    return by_key


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
