"""Run in an environment with verl: the service's URL in, JSON out. verl loads our manager by path, as configured."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf  # type: ignore[import-not-found]
from verl import DataProto  # type: ignore[import-not-found]
from verl.experimental.agent_loop.agent_loop import (  # type: ignore[import-not-found]
    AgentLoopMetrics,
    AgentLoopOutput,
)
from verl.trainer.ppo import core_algos  # type: ignore[import-not-found]
from verl.trainer.ppo.reward import load_reward_manager  # type: ignore[import-not-found]

from rmkit.serve.clients import verl_manager
from rmkit.types import Span

REPLIES = ["#### 72.", "99"]
WORDS = ["<pad>", "</s>", *REPLIES]


class Tokenizer:
    """Whole replies as tokens."""

    def decode(self, ids: Any, *, skip_special_tokens: bool = True) -> str:
        return " ".join(WORDS[int(one)] for one in ids if one >= 2)


def sample(reply: str, gold: Any, *, uid: str, step: int) -> DataProto:
    """What verl's agent loop hands to a manager: two tokens of a prompt, a reply, its end, padding."""
    return DataProto.from_dict(
        tensors={
            "prompts": torch.zeros(1, 2, dtype=torch.long),
            "responses": torch.tensor([[WORDS.index(reply), 1, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 0]]),
        },
        non_tensors={
            "raw_prompt": _object([{"role": "user", "content": "What is 8 * 9?"}]),
            "uid": _object(uid),
            "global_steps": _object(step),
            "data_source": _object("d"),
            "reward_model": _object({"ground_truth": gold}),
            "extra_info": _object({"index": 3}),
        },
    )


def _object(value: Any) -> Any:
    array: Any = np.empty(1, dtype=object)
    array[0] = value
    return array


def manager(url: str, **settings: Any) -> Any:
    how = {"source": "importlib", "name": "RmkitRewardManager", "module": {"path": verl_manager.__file__}}
    config = {"reward": {"reward_manager": how, "rmkit": {"url": url, **settings}}}
    return load_reward_manager(OmegaConf.create(config), Tokenizer())


async def rewards(made: Any, *samples: DataProto) -> list[Any]:
    results = await asyncio.gather(*(made.run_single(one) for one in samples), return_exceptions=True)
    return [f"{type(one).__name__}: {one}" if isinstance(one, BaseException) else one for one in results]


def main(url: str) -> None:
    plain = manager(url, signal="reference")
    result: dict[str, Any] = {}
    for gold in ("72", "99", 72, None):
        result[f"gold {gold!r}"] = asyncio.run(rewards(plain, sample(REPLIES[0], gold, uid="u", step=1)))[0]
    stand_in = manager(url, signal="reference", unscored_reward=-3.0)
    result["stand-in"] = asyncio.run(rewards(stand_in, sample(REPLIES[0], None, uid="u", step=1)))[0]
    group = [sample(reply, "72", uid="g", step=4) for reply in REPLIES]
    result["group"] = asyncio.run(rewards(manager(url, signal="reference_centered", group_size=2), *group))

    scores = torch.tensor([[0.2, 0.0, 0.8], [0.5, -0.5, 9.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    estimator = core_algos.get_adv_estimator_fn("rmkit")
    advantages, _ = estimator(token_level_rewards=scores, response_mask=mask, config=None, index=None)
    result["advantages"] = advantages.tolist()

    output = verl_manager.token_output(
        AgentLoopOutput,
        [Span(0.25, 0, 2), Span(0.5, 2, 5)],
        [(0, 2), (2, 4), (4, 5)],
        prompt_ids=[7],
        response_ids=[3, 4, 5],
        response_mask=[1, 1, 1],
        num_turns=2,
        metrics=AgentLoopMetrics(),
    )
    result["tokens"] = {"rm_scores": output.as_dict()["rm_scores"].tolist(), "reward_score": output.reward_score}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
