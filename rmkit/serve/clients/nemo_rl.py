"""NeMo-RL's environment (0.6): a single-turn reward from the service.

    register_env("rmkit", "rmkit.serve.clients.nemo_rl.RewardServiceActor")
    ACTOR_ENVIRONMENT_REGISTRY["rmkit.serve.clients.nemo_rl.RewardServiceActor"] = PY_EXECUTABLES.SYSTEM

with `env: {rmkit: {url: ..., token: ..., model: ..., unscored_reward: ...}}` in the config. The last turn of a message
log is the reply, what stands before it the prompt. Needs torch and NeMo-RL (ray for the actor), which are imported when
used. NeMo-RL has no word for a missing reward: an unscored reply raises, or counts `unscored_reward` where it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.chat.reader import TURN_FIELDS
from rmkit.serve.clients.reward_client import RewardClient
from rmkit.serve.clients.rewards import scores_of, value_or
from rmkit.types import Score

UNSCORED = "rmkit_unscored"


class RewardServiceEnvironment:
    """`config` holds url, token, model (see `RewardClient`) and unscored_reward, all optional."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        inputs = config or {}
        self.client = RewardClient(inputs.get("url"), token=inputs.get("token"), model=inputs.get("model"))
        self.unscored_reward: float | None = inputs.get("unscored_reward")

    def step(self, message_log_batch: Sequence[Sequence[Mapping[str, Any]]], metadata: Sequence[Any]) -> Any:
        """EnvironmentReturn with one reward per message log; every episode ends. Raises RewardServiceError."""
        import torch
        from nemo_rl.environments.interfaces import EnvironmentReturn  # type: ignore[import-not-found]

        logs = [
            [{name: turn[name] for name in TURN_FIELDS if name in turn} for turn in log] for log in message_log_batch
        ]
        scores = scores_of(self.client, [log[:-1] for log in logs], [log[-1:] for log in logs])
        values = [value_or(score, self.unscored_reward) for score in scores]
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": f"Environment: {value}"} for value in values],
            metadata=[_noted(one, score) for one, score in zip(metadata, scores, strict=True)],
            next_stop_strings=[None] * len(values),
            rewards=torch.tensor(values, dtype=torch.float32),
            terminateds=torch.ones(len(values), dtype=torch.bool),
            answers=[log[-1]["content"] for log in logs],
        )

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """The batch as it is, and the mean and spread of its rewards."""
        rewards = batch.get("rewards")
        if rewards is None or not len(rewards):
            return batch, {}
        return batch, {"rmkit/mean_reward": float(rewards.mean()), "rmkit/std_reward": float(rewards.std(correction=0))}

    def shutdown(self) -> None:
        self.client.close()


def _noted(metadata: Any, score: Score) -> Any:
    """The metadata with the reason beside it where a reply is unscored."""
    if score.unscored is None:
        return metadata
    return {**metadata, UNSCORED: score.unscored} if isinstance(metadata, Mapping) else {UNSCORED: score.unscored}


def __getattr__(name: str) -> Any:
    if name == "RewardServiceActor":
        import ray

        return ray.remote(RewardServiceEnvironment)
    raise AttributeError(name)
