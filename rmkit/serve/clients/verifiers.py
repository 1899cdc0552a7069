"""A reward function plugged into any taskset of verifiers (0.4, `verifiers.v1`), and so into prime-rl:

    --env.taskset.task.rewards.rmkit.fn=.../rmkit/serve/clients/verifiers.py:shaped

The conversation of the trace before its first assistant turn is the prompt, the rest the completion; the fields of the
task (`answer`, `rubric`, ...) are the row. The address comes from RMKIT_REWARD_URL, RMKIT_REWARD_TOKEN and
RMKIT_REWARD_MODEL, a signal of the service from RMKIT_REWARD_SIGNAL. A rollout without a reward raises, which verifiers
notes on its trace: a NaN would spoil every advantage of its group. Components are noted as metrics `rmkit_NAME`.

Groups are verifiers' and prime-rl's own: a signal's chain sees one rollout here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.clients.samples import split
from rmkit.serve.clients.signal_client import Sample, SignalClient
from rmkit.signal.columns import plain


async def shaped(task: Any, trace: Any) -> float:
    """The rollout's reward. Raises RewardServiceError, or DataError where it is unscored."""
    prompt, completion = split([_turn(message) for message in trace.messages])
    row = plain(task if isinstance(task, Mapping) else _fields(task))
    [reward] = await _client().rewards_async([Sample(prompt=prompt, completion=completion, row=row)])
    if reward.reward is None:
        raise DataError(f"the rollout cannot be scored: {reward.unscored}")
    if hasattr(trace, "record_metrics") and reward.components:
        trace.record_metrics({f"rmkit_{name}": value for name, value in reward.components.items()})
    return reward.reward


def _turn(message: Any) -> dict[str, object]:
    fields = message if isinstance(message, Mapping) else _fields(message)
    return {name: plain(value) for name, value in fields.items() if value is not None}


def _fields(value: Any) -> dict[str, object]:
    """The fields of a pydantic model or of any other object."""
    if hasattr(value, "model_dump"):
        fields: dict[str, Any] = value.model_dump(mode="json")
        return fields
    return dict(vars(value))


@lru_cache(maxsize=1)
def _client() -> SignalClient:
    return SignalClient(signal=os.environ.get("RMKIT_REWARD_SIGNAL"))
