"""A rubric for verifiers (0.1): `vf.SingleTurnEnv(dataset=..., rubric=reward_rubric("http://HOST:PORT"))`.

The reward function is a group function, so the rollouts of one prompt travel together. verifiers turns an exception
into the reward 0.0, which is a lie; a rollout without a score is NaN instead, with the reason in its state under
`rmkit_unscored`, or `unscored_reward` where that is given.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from rmkit.errors import MissingExtraError, RmkitError
from rmkit.serve.clients.reward_client import RewardClient
from rmkit.serve.clients.rewards import scores_of
from rmkit.types import Score

GroupFunction = Callable[..., Awaitable[list[float]]]


def reward_rubric(url: str | None = None, *, weight: float = 1.0, **options: Any) -> Any:
    """A verifiers Rubric whose one reward is the service's. `options` as for `group_reward`."""
    try:
        import verifiers  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingExtraError("verifiers", None) from error
    return verifiers.Rubric(funcs=[group_reward(url, **options)], weights=[weight])


def group_reward(
    url: str | None = None,
    *,
    token: str | None = None,
    model: str | None = None,
    unscored_reward: float | None = None,
) -> GroupFunction:
    """The reward function alone, for a rubric that has others too."""
    client = RewardClient(url, token=token, model=model)

    async def rmkit_reward(
        prompts: Sequence[Any], completions: Sequence[Any], states: Sequence[MutableMapping[str, Any]]
    ) -> list[float]:
        try:
            scores = await asyncio.to_thread(scores_of, client, prompts, completions)
        except RmkitError as error:
            scores = [Score.failed(str(error))] * len(prompts)
        for state, score in zip(states, scores, strict=True):
            if score.unscored is not None:
                state["rmkit_unscored"] = score.unscored
        missing = math.nan if unscored_reward is None else unscored_reward
        return [missing if score.unscored is not None else score.value for score in scores]

    return rmkit_reward
