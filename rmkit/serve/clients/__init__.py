"""What a trainer's machine needs to ask a reward service: httpx and tenacity, no torch, no FastAPI.

    reward_client   RewardClient: the service as a RewardModel; retries, circuit breaker, cache
    signal_client   SignalClient: samples with their rows in, shaped rewards out; every adapter uses it
    alarm           WatchedRewards, a hacking alarm around a reward function
    prompts         the prompt book for a trainer: what happened, what comes next
    trl             RewardFunction, AsyncRewardFunction for GRPO, RLOO and online DPO; TokenAdvantages
    ms_swift        the plug-in file for ms-swift's GRPO
    verl            compute_score, compute_score_async, compute_score_batch
    verl_manager    RmkitRewardManager and the estimator for token rewards
    verl_sampler    PromptBookBuffer, which chooses among finished groups by the prompt book
    openrlhf        reward_func, for --reward.remote_url FILE.py
    nemo_rl         RewardServiceEnvironment and its Ray actor
    verifiers       shaped, a reward function for verifiers.v1

Files that a trainer loads by path take their settings from RMKIT_REWARD_URL, RMKIT_REWARD_TOKEN, RMKIT_REWARD_MODEL and
RMKIT_REWARD_SIGNAL.
"""

from __future__ import annotations

from rmkit.serve.clients.reward_client import RewardClient
from rmkit.serve.clients.service_http import Patience, RewardServiceError, UnavailableError
from rmkit.serve.clients.signal_client import Sample, SampleReward, SignalClient

__all__ = [
    "Patience",
    "RewardClient",
    "RewardServiceError",
    "Sample",
    "SampleReward",
    "SignalClient",
    "UnavailableError",
]
