"""NeMo-RL's environment (0.6): a single-turn reward from the service.

    register_env("rmkit", "rmkit.serve.clients.nemo_rl.RewardServiceActor")
    ACTOR_ENVIRONMENT_REGISTRY["rmkit.serve.clients.nemo_rl.RewardServiceActor"] = PY_EXECUTABLES.SYSTEM

with `env: {rmkit: {url: ..., token: ..., model: ..., signal: ..., unscored_reward: ...}}` in the config. The last turn
of a message log is the reply, what stands before it the prompt, its metadata (the row's `extra_env_info`) the row.
Needs torch and NeMo-RL (ray for the actor), which are imported when used. NeMo-RL has no word for a missing reward: an
unscored reply raises, or counts `unscored_reward` where it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.chat.reader import TURN_FIELDS
from rmkit.serve.clients.signal_client import Sample, SampleReward, SignalClient

UNSCORED = "rmkit_unscored"


class RewardServiceEnvironment:
    """`config` holds url, token, model, signal (see `SignalClient`), `group`, the key of the metadata that tells groups
    apart, and unscored_reward, all optional."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        inputs = config or {}
        self.client = SignalClient(
            inputs.get("url"), token=inputs.get("token"), model=inputs.get("model"), signal=inputs.get("signal")
        )
        self.group: str | None = inputs.get("group")
        self.unscored_reward: float | None = inputs.get("unscored_reward")

    def step(self, message_log_batch: Sequence[Sequence[Mapping[str, Any]]], metadata: Sequence[Any]) -> Any:
        """EnvironmentReturn with one reward per message log; every episode ends. Raises RewardServiceError."""
        import torch
        from nemo_rl.environments.interfaces import EnvironmentReturn  # type: ignore[import-not-found]

        logs = [
            [{name: turn[name] for name in TURN_FIELDS if name in turn} for turn in log] for log in message_log_batch
        ]
        rewards = self.client.rewards([self._sample(log, one) for log, one in zip(logs, metadata, strict=True)])
        values = [one.or_else(self.unscored_reward) for one in rewards]
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": f"Environment: {value}"} for value in values],
            metadata=[_noted(one, reward) for one, reward in zip(metadata, rewards, strict=True)],
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

    def _sample(self, log: Sequence[Mapping[str, Any]], metadata: Any) -> Sample:
        row = dict(metadata) if isinstance(metadata, Mapping) else {}
        group = row.get(self.group) if self.group else None
        return Sample(prompt=log[:-1], completion=log[-1:], row=row, group=None if group is None else str(group))


def _noted(metadata: Any, reward: SampleReward) -> object:
    """The metadata with the reason beside it where a reply is unscored."""
    if reward.unscored is None:
        return metadata
    return {**metadata, UNSCORED: reward.unscored} if isinstance(metadata, Mapping) else {UNSCORED: reward.unscored}


def __getattr__(name: str) -> Any:
    if name == "RewardServiceActor":
        import ray

        return ray.remote(RewardServiceEnvironment)
    raise AttributeError(name)
