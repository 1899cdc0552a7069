"""verl's custom reward functions, loaded by path:

    reward.custom_reward_function.path=.../rmkit/serve/clients/verl.py
    reward.custom_reward_function.name=compute_score_async
    +reward.custom_reward_function.reward_kwargs.url=http://HOST:PORT
    +reward.custom_reward_function.reward_kwargs.signal=math

verl hands over the reply without its prompt: put the prompt (text or messages) into `extra_info` under `prompt_key`.
The ground truth is the row's `reference`, `extra_info` the rest of it. Every result has the same keys, failures too,
because verl takes its columns from the first row. verl has no word for a missing reward: an unscored reply raises, or
counts `unscored_reward` where that is given. Rewards shaped over a group need `verl_manager`.

    compute_score, compute_score_async    one reply: {"score", "rmkit_unscored", "rmkit_truncated", "rmkit_raw"}
    compute_score_batch                   the `batch` manager: lists in, a list of such results out
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rmkit.errors import DataError
from rmkit.serve.clients.signal_client import Sample, SampleReward, SignalClient
from rmkit.signal.columns import plain


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, float]:
    """One reply's reward; `options`: url, token, model, signal, prompt_key, unscored_reward.

    Raises RewardServiceError, or DataError where it is unscored or its prompt is missing.
    """
    return compute_score_batch([data_source], [solution_str], [ground_truth], [extra_info], **options)[0]


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    unscored_reward: float | None = None,
    prompt_key: str = "prompt",
    **options: Any,
) -> dict[str, float]:
    """`compute_score` as a coroutine."""
    sample = sample_of(data_source, solution_str, ground_truth, extra_info, prompt_key=prompt_key)
    [reward] = await _client(**_settings(options)).rewards_async([sample])
    return result(reward, unscored_reward)


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    unscored_reward: float | None = None,
    prompt_key: str = "prompt",
    **options: Any,
) -> list[dict[str, float]]:
    """[n] rewards in order, neighbors with the same prompt and row as one group. Raises as `compute_score`."""
    columns = zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    samples = [sample_of(*one, prompt_key=prompt_key) for one in columns]
    return [result(reward, unscored_reward) for reward in _client(**_settings(options)).rewards(samples)]


def sample_of(
    data_source: str, reply: str, ground_truth: Any, extra_info: Mapping[str, Any] | None, *, prompt_key: str
) -> Sample:
    """One reply with its prompt and row. Raises DataError where the prompt is missing."""
    extra = dict(extra_info or {})
    if prompt_key not in extra:
        raise DataError(
            f"extra_info holds no {prompt_key!r}; verl sends only the reply, so the dataset must put the prompt there"
        )
    prompt = extra.pop(prompt_key)
    row = {"reference": plain(ground_truth), "data_source": data_source, "extra_info": plain(extra)}
    return Sample(prompt=prompt if isinstance(prompt, str) else list(prompt), completion=reply, row=row)


def result(reward: SampleReward, unscored_reward: float | None) -> dict[str, float]:
    """What verl reads, always with the same keys; `rmkit_raw` is the mix, for filters that look for spread."""
    score = reward.or_else(unscored_reward)
    return {
        "score": score,
        "rmkit_unscored": float(reward.reward is None),
        "rmkit_truncated": float(reward.truncated),
        "rmkit_raw": score if reward.raw is None else reward.raw,
    }


def _settings(options: Mapping[str, Any]) -> dict[str, object]:
    """What makes a client, as values that a cache can compare; verl adds keywords of its own."""
    signal = options.get("signal")
    whole = signal if signal is None or isinstance(signal, str) else json.dumps(plain(dict(signal)), sort_keys=True)
    return {"signal": whole} | {name: options.get(name) for name in ("url", "token", "model")}


@lru_cache(maxsize=8)
def _client(url: str | None, token: str | None, model: str | None, signal: str | None) -> SignalClient:
    fields = json.loads(signal) if signal is not None and signal.startswith("{") else signal
    return SignalClient(url, token=token, model=model, signal=fields)
