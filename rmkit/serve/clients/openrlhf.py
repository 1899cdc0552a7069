"""OpenRLHF's reward function file: `--reward.remote_url .../rmkit/serve/clients/openrlhf.py`.

The remote form (`--reward.remote_url http://HOST:PORT/openrlhf`) needs no file; this one adds patience: OpenRLHF's own
client gives up after five attempts and goes on with the reward None. Labels travel: a gold answer, or a mapping with
`reference`, `rubric`, `components` and more (see the dialect). The address comes from RMKIT_REWARD_URL,
RMKIT_REWARD_TOKEN and RMKIT_REWARD_MODEL, a signal of the service from RMKIT_REWARD_SIGNAL; the service reads the
policy's text.

OpenRLHF runs this function in threads: groups that gather over several calls must use the remote form.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from rmkit.serve.clients.address import address
from rmkit.serve.clients.service_http import Patience, RewardServiceError, ServiceHttp
from rmkit.signal.columns import plain


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, object]:
    """{"rewards", "scores", "extra_logs"}, each with one number per query. Raises RewardServiceError."""
    signal = os.environ.get("RMKIT_REWARD_SIGNAL")
    body = {"query": list(queries), "prompts": list(prompts), "labels": plain(list(labels))}
    path = "/openrlhf" + (f"?signal={quote(signal)}" if signal else "")
    answer: dict[str, Any] = _service().ask(path, body)
    if len(answer["rewards"]) != len(queries):
        raise RewardServiceError(f"{len(answer['rewards'])} rewards for {len(queries)} queries")
    return answer


@lru_cache(maxsize=1)
def _service() -> ServiceHttp:
    return ServiceHttp(address(), Patience())
