"""verl's custom reward functions, loaded by path:

    reward.custom_reward_function.path=.../rmkit/serve/clients/verl.py
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.url=http://HOST:PORT

verl hands over the reply without its prompt: put the prompt (text or messages) into `extra_info` under `prompt_key`.
Every result has the same keys, failures too, because verl takes its columns from the first row. verl has no word for a
missing reward: an unscored reply raises, or counts `unscored_reward` where that is given.

    compute_score, compute_score_async    one reply: {"score", "rmkit_unscored", "rmkit_truncated"}
    compute_score_batch                   the `batch` manager: lists in, a list of such results out
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.clients.reward_client import RewardClient
from rmkit.serve.clients.rewards import scores_of, value_or
from rmkit.types import Score


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    model: str | None = None,
    prompt_key: str = "prompt",
    unscored_reward: float | None = None,
    **_: Any,
) -> dict[str, float]:
    """One reply's reward. Raises RewardServiceError, or DataError where it is unscored or its prompt is missing."""
    return compute_score_batch(
        [data_source],
        [solution_str],
        [ground_truth],
        [extra_info],
        url=url,
        token=token,
        model=model,
        prompt_key=prompt_key,
        unscored_reward=unscored_reward,
    )[0]


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, float]:
    """`compute_score` off the event loop."""
    return await asyncio.to_thread(compute_score, data_source, solution_str, ground_truth, extra_info, **options)


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    url: str | None = None,
    token: str | None = None,
    model: str | None = None,
    prompt_key: str = "prompt",
    unscored_reward: float | None = None,
    **_: Any,
) -> list[dict[str, float]]:
    """[n] rewards in order, neighbors with the same prompt as one group. Raises as `compute_score`."""
    prompts = [_prompt(extra, prompt_key) for extra in extra_infos]
    scores = scores_of(_client(url, token, model), prompts, list(solution_strs))
    return [_result(score, unscored_reward) for score in scores]


def _result(score: Score, unscored_reward: float | None) -> dict[str, float]:
    return {
        "score": value_or(score, unscored_reward),
        "rmkit_unscored": float(score.unscored is not None),
        "rmkit_truncated": float(score.truncated),
    }


def _prompt(extra: Mapping[str, Any] | None, key: str) -> Any:
    if extra is None or key not in extra:
        raise DataError(
            f"extra_info holds no {key!r}; verl sends only the reply, so the dataset must put the prompt there"
        )
    return extra[key] if isinstance(extra[key], str) else list(extra[key])


@lru_cache(maxsize=8)
def _client(url: str | None, token: str | None, model: str | None) -> RewardClient:
    return RewardClient(url, token=token, model=model)
