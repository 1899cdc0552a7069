"""TRL's reward functions (GRPO, RLOO, online DPO, async GRPO; TRL 1.x):

    reward = RewardFunction("http://HOST:PORT", signal="math")           # or {"mix": {...}, "chain": ["z_score"]}
    trainer = GRPOTrainer(model, reward_funcs=reward, train_dataset=rows_with_answers, ...)

All columns of the dataset travel with their prompt; the signal says where answers, rubrics and groups stand in them. A
completion that cannot be rewarded is None, which TRL leaves out of its sums; the list is always as long as the prompts.
A service that stays away longer than `Patience` allows raises, because training on missing rewards would go unnoticed;
`on_failure="none"` gives None for all instead. Both classes pickle, as async GRPO needs.

Where one group's completions come in several calls (several processes), name the column that tells groups apart and how
many completions a group has: `group="prompt_id", group_size=8`. The signal's shaping replaces TRL's own: set
`scale_rewards="none"`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from rmkit.errors import DataError, MissingExtraError
from rmkit.serve.clients.samples import samples_of
from rmkit.serve.clients.service_http import Patience, RewardServiceError
from rmkit.serve.clients.signal_client import Sample, SampleReward, SignalClient, SignalLike

log = logging.getLogger(__name__)


class RewardFunction:
    """Called by the trainer; `name` is the column under which TRL logs the reward. See `SignalClient` for the rest.

    `on_unscored` "raise" is for trainers that read None as zero. `spans` asks where in each completion its values lie;
    the last call's answers stay in `last`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        model: str | None = None,
        signal: SignalLike = None,
        group: str | None = None,
        group_size: int | None = None,
        name: str = "rmkit_reward",
        on_failure: Literal["raise", "none"] = "raise",
        on_unscored: Literal["none", "raise"] = "none",
        policy_version: str | None = None,
        spans: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.client = SignalClient(
            url, token=token, model=model, signal=signal, group_size=group_size, patience=patience
        )
        self.__name__ = name
        self.group = group
        self.on_failure = on_failure
        self.on_unscored = on_unscored
        self.policy_version = policy_version
        self.spans = spans
        self.last: list[SampleReward] = []

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """[n] rewards, None where there is none."""
        samples = self._samples(prompts, completions, columns)
        try:
            rewards = self.client.rewards(samples, **self._options(columns))
        except RewardServiceError as error:
            rewards = self._failed(error, len(samples))
        return self._answer(rewards, columns)

    def _samples(self, prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> list[Sample]:
        ids = columns.get("completion_ids")
        lengths = None if ids is None else [len(one) for one in ids]
        rows = {name: values for name, values in columns.items() if name not in ("completion_ids", "environments")}
        return samples_of(prompts, completions, rows, lengths=lengths, group=self.group)

    def _options(self, columns: dict[str, Any]) -> dict[str, object]:
        step = getattr(columns.get("trainer_state"), "global_step", None)
        return {"step": step, "policy_version": self.policy_version, "spans": self.spans}

    def _failed(self, error: RewardServiceError, n: int) -> list[SampleReward]:
        if self.on_failure == "raise":
            raise error
        log.warning("no rewards for %d completions: %s", n, error)
        return [SampleReward(unscored=str(error))] * n

    def _answer(self, rewards: list[SampleReward], columns: dict[str, Any]) -> list[float | None]:
        self.last = rewards
        missing = [one.unscored for one in rewards if one.reward is None]
        if missing and self.on_unscored == "raise":
            raise DataError(f"{len(missing)} of {len(rewards)} completions are unscored; the first: {missing[0]}")
        if (log_metric := columns.get("log_metric")) and rewards:
            log_metric(f"{self.__name__}/unscored", len(missing) / len(rewards))
            for name in dict.fromkeys(name for one in rewards for name in one.components):
                values = [one.components[name] for one in rewards if name in one.components]
                log_metric(f"{self.__name__}/{name}", sum(values) / len(values))
        return [one.reward for one in rewards]


class AsyncRewardFunction(RewardFunction):
    """The same as a coroutine: TRL runs it beside its other reward functions, and no thread waits for a group."""

    async def __call__(  # type: ignore[override]
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """[n] rewards, None where there is none."""
        samples = self._samples(prompts, completions, columns)
        try:
            rewards = await self.client.rewards_async(samples, **self._options(columns))
        except RewardServiceError as error:
            rewards = self._failed(error, len(samples))
        return self._answer(rewards, columns)


def _with_token_advantages(base: type[Any]) -> type[Any]:
    class TokenAdvantages(base):  # type: ignore[misc]
        """GRPOTrainer with one advantage per token: the values of the spans that the reward function was given.

        Its one reward function is a RewardFunction with `spans=True`. A completion without spans keeps its advantage
        for all of its tokens.
        """

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            import torch

            from rmkit.shaping.spans import on_tokens, token_offsets

            output = super()._generate_and_score_completions(inputs)
            function = next(one for one in self.reward_funcs if isinstance(one, RewardFunction))
            ids, mask = output["completion_ids"], output["completion_mask"]
            advantages = output["advantages"].unsqueeze(1).repeat(1, ids.shape[1])
            for row, one in enumerate(function.last):
                if one.spans and one.reward is not None:
                    tokens = ids[row][mask[row].bool()].tolist()
                    values = on_tokens(one.spans, token_offsets(self.processing_class, tokens), at="all")
                    advantages[row] = 0
                    advantages[row, : len(values)] = torch.tensor(values, dtype=advantages.dtype)
            output["advantages"] = advantages
            return output

    return TokenAdvantages


def __getattr__(name: str) -> Any:
    if name == "TokenAdvantages":
        try:
            from trl.trainer.grpo_trainer import GRPOTrainer
        except ImportError as error:
            raise MissingExtraError("trl", "train") from error
        return _with_token_advantages(GRPOTrainer)
    raise AttributeError(name)
