"""ms-swift's GRPO (4.6): an external plug-in that registers the reward function `rmkit`.

    swift rlhf --rlhf_type grpo --external_plugins .../rmkit/serve/clients/ms_swift.py --reward_funcs rmkit ...

Settings come from the environment: RMKIT_REWARD_URL, RMKIT_REWARD_TOKEN, RMKIT_REWARD_MODEL, RMKIT_REWARD_SIGNAL (the
name of a signal of the service). Groups are told apart by ms-swift's `prompt_id`; RMKIT_REWARD_GROUP_SIZE
(num_generations) lets several processes share one. ms-swift reads a missing reward as 0, so a completion without one
raises here, or gets RMKIT_UNSCORED_REWARD.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.clients.samples import samples_of, split
from rmkit.serve.clients.trl import AsyncRewardFunction


class SwiftReward(AsyncRewardFunction):
    """As ms-swift calls it: completions, and the rows with `messages`, `prompt_id` and `response_token_ids`."""

    def __init__(self, args: Any = None, *, unscored_reward: float | None = None, **options: Any) -> None:
        super().__init__(group="prompt_id", name="rmkit", on_unscored="raise", **options)
        self.args = args
        self.unscored_reward = unscored_reward

    async def __call__(  # type: ignore[override]
        self, completions: Sequence[Any], *, messages: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """[n] rewards. Raises DataError where one is missing and no stand-in is set."""
        if messages is None:
            raise DataError("ms-swift gave no messages; rmkit needs them for the prompts")
        prompts = [split(one)[0] for one in messages]
        ids = columns.pop("response_token_ids", None)
        lengths = None if ids is None else [_count(one) for one in ids]
        samples = samples_of(prompts, completions, columns, lengths=lengths, group=self.group)
        rewards = await self.client.rewards_async(samples, **self._options(columns))
        if self.unscored_reward is None:
            return self._answer(rewards, columns)
        self.last = rewards
        return [one.or_else(self.unscored_reward) for one in rewards]


def _count(ids: Any) -> int:
    """Tokens of a response, which several turns bring as lists of lists."""
    return sum(map(_count, ids)) if ids and isinstance(ids[0], list) else len(ids)


def from_environment(args: Any = None, **_: Any) -> SwiftReward:
    """The reward function with the settings of the environment."""
    stand_in, size = os.environ.get("RMKIT_UNSCORED_REWARD"), os.environ.get("RMKIT_REWARD_GROUP_SIZE")
    return SwiftReward(
        args,
        signal=os.environ.get("RMKIT_REWARD_SIGNAL"),
        group_size=int(size) if size else None,
        unscored_reward=float(stand_in) if stand_in else None,
    )


def register(orms: dict[str, Any]) -> None:
    """Put the reward function into ms-swift's table, as a class: ms-swift calls it with its arguments."""
    orms["rmkit"] = type("RmkitReward", (SwiftReward,), {"__init__": _init_from_environment})


def _init_from_environment(self: SwiftReward, args: Any = None, **_: Any) -> None:
    self.__dict__.update(from_environment(args).__dict__)


try:
    from swift.rewards import orms  # type: ignore[import-not-found]
except ImportError:  # imported outside of ms-swift
    pass
else:
    register(orms)
