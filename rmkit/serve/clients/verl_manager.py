"""verl's reward manager (0.9), loaded by path: prompts, gold answers and groups without touching the dataset.

    reward.reward_manager.source=importlib
    reward.reward_manager.name=RmkitRewardManager
    reward.reward_manager.module.path=.../rmkit/serve/clients/verl_manager.py
    +reward.rmkit.url=http://HOST:PORT  +reward.rmkit.signal=math  +reward.rmkit.group_size=8
    algorithm.norm_adv_by_std_in_grpo=False          # where the signal's chain has normalized already

The prompt is `raw_prompt`, the group `uid`, the row everything else of a sample, with `reward_model.ground_truth` as
`reference`. A sample waits for its group in a coroutine; `rmkit.unscored_reward` stands in for what has no reward,
which raises otherwise. Dynamic filters look at `rmkit_raw`, the mix before the chain.

Token rewards: an agent loop that returns `token_output(...)` hands verl one number per response token, which the
estimator `rmkit` (`algorithm.adv_estimator=rmkit`), registered here, passes on as advantages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase  # type: ignore[import-not-found]
from verl.trainer.ppo.core_algos import (  # type: ignore[import-not-found]
    ADV_ESTIMATOR_REGISTRY,
    register_adv_est,
)

from rmkit.serve.clients.signal_client import Sample, SignalClient
from rmkit.serve.clients.verl import result
from rmkit.shaping.spans import on_tokens
from rmkit.signal.columns import plain
from rmkit.types import Span

_OWN = ("raw_prompt", "uid", "reward_model", "extra_info")


class RmkitRewardManager(RewardManagerBase):  # type: ignore[misc]
    """One sample's reward at a time, a whole group's where the signal shapes groups."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, *_: Any, **__: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings = plain_settings(config)
        self.unscored_reward = settings.pop("unscored_reward", None)
        self.client = SignalClient(**settings)

    async def run_single(self, data: Any) -> dict[str, object]:
        """{"reward_score", "reward_extra_info"} of the last sequence. Raises DataError where it is unscored."""
        sample, step = self._sample(data[-1:][0])
        [reward] = await self.client.rewards_async([sample], step=step)
        row = result(reward, self.unscored_reward)
        return {"reward_score": row["score"], "reward_extra_info": row}

    def _sample(self, item: Any) -> tuple[Sample, int | None]:
        ids = item.batch["responses"]
        valid = int(item.batch["attention_mask"][-ids.shape[-1] :].sum())
        reply = self.tokenizer.decode(ids[:valid], skip_special_tokens=True)
        columns = item.non_tensor_batch
        row = {name: plain(value) for name, value in columns.items() if name not in _OWN}
        row["reference"] = plain((columns.get("reward_model") or {}).get("ground_truth"))
        row["extra_info"] = plain(columns.get("extra_info") or {})
        step = columns.get("global_steps")
        sample = Sample(
            prompt=list(columns["raw_prompt"]),
            completion=reply,
            row={name: value for name, value in row.items() if value is not None},
            columns={"length": float(valid)},
            group=str(columns["uid"]) if "uid" in columns else None,
        )
        return sample, None if step is None else int(step)


def plain_settings(config: Any) -> dict[str, Any]:
    """The table `reward.rmkit` of verl's config, an OmegaConf node or a namespace, as plain values."""
    table = getattr(getattr(config, "reward", None), "rmkit", None) or {}
    items = table.items() if isinstance(table, Mapping) or hasattr(table, "items") else vars(table).items()
    return {name: plain(dict(value.items()) if hasattr(value, "items") else value) for name, value in items}


def token_advantages(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, config: Any = None, index: Any = None, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantages, returns), [B, T] each: the token rewards themselves, which the signal has shaped already."""
    advantages = token_level_rewards * response_mask
    return advantages, advantages


if "rmkit" not in ADV_ESTIMATOR_REGISTRY:  # verl loads this file once for each manager that it makes
    register_adv_est("rmkit")(token_advantages)


def token_output(base: type[Any], spans: Sequence[Span], offsets: Sequence[tuple[int, int]], **fields: Any) -> Any:
    """An AgentLoopOutput of verl's (`base`) whose `rm_scores` are the spans' values over all response tokens."""
    values = on_tokens(spans, offsets)

    class TokenRewards(base):  # type: ignore[misc]
        def as_dict(self) -> dict[str, object]:
            whole: dict[str, Any] = super().as_dict()
            scores = torch.zeros_like(whole["responses"], dtype=torch.float32)
            scores.view(-1)[: len(values)] = torch.tensor(values, dtype=torch.float32)
            whole["rm_scores"] = scores
            return whole

    return TokenRewards(**fields, reward_score=float(values.sum()))
