"""Run in an environment with verifiers: JSON out. Its own Task loads our function by path and scores traces with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from verifiers.v1 import AgentConfig, State  # type: ignore[import-not-found]
from verifiers.v1.configs.task import TaskConfig  # type: ignore[import-not-found]
from verifiers.v1.graph import MessageNode  # type: ignore[import-not-found]
from verifiers.v1.task import Task, TaskData  # type: ignore[import-not-found]
from verifiers.v1.trace import AgentInfo, Trace, TraceTask  # type: ignore[import-not-found]
from verifiers.v1.types import AssistantMessage, UserMessage  # type: ignore[import-not-found]

import rmkit.serve.clients

QUESTION, REPLY = "What is 8 * 9?", "#### 72."


class Data(TaskData):  # type: ignore[misc]
    answer: Any = None


async def scored(gold: Any) -> dict[str, Any]:
    """The trace's rewards and metrics after verifiers has scored it, or the error that it notes."""
    path = Path(rmkit.serve.clients.__file__).parent / "verifiers.py"
    config = TaskConfig(rewards={"rmkit": {"fn": f"{path}:shaped", "weight": 0.5}})
    task = Task(Data(prompt=QUESTION, answer=gold), config)
    nodes = [
        MessageNode(message=UserMessage(content=QUESTION)),
        MessageNode(parent=0, message=AssistantMessage(content=REPLY)),
    ]
    trace = Trace(
        task=TraceTask(type="Task", data=task.data), state=State(), nodes=nodes, agent=AgentInfo(config=AgentConfig())
    )
    try:
        await task.score(trace)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"reward": trace.reward, "rewards": dict(trace.rewards), "metrics": dict(trace.metrics)}


if __name__ == "__main__":
    print(json.dumps({repr(gold): asyncio.run(scored(gold)) for gold in ("72", "99", 72, None)}, default=str))
