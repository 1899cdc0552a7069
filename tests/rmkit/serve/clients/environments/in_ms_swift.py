"""Run in an environment with ms-swift: JSON out. Its own code loads the plug-in and calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from swift.rewards import orms  # type: ignore[import-not-found]
from swift.rl_core.data import GRPOSample  # type: ignore[import-not-found]
from swift.rl_core.grpo_algorithm import compute_rewards_per_func  # type: ignore[import-not-found]
from swift.utils import import_external_file  # type: ignore[import-not-found]

import rmkit.serve.clients

QUESTION = {"role": "user", "content": "What is 8 * 9?"}


def sample(reply: str, gold: Any, prompt_id: str) -> Any:
    messages = [QUESTION, {"role": "assistant", "content": reply}]
    return GRPOSample(
        messages=messages,
        prompt_id=prompt_id,
        extra={"answer": gold},
        response_token_ids=[[1, 2]],
        finish_reason="stop",
    )


def rewards(*samples: Any) -> Any:
    function = orms["rmkit"](args=None)
    try:
        table = compute_rewards_per_func(list(samples), [function], [None], device=torch.device("cpu"))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return table[:, 0].tolist()


def main() -> None:
    import_external_file(str(Path(rmkit.serve.clients.__file__).parent / "ms_swift.py"))
    result = {repr(gold): rewards(sample("#### 72.", gold, "p")) for gold in ("72", "99", 72, None)}
    result["group"] = rewards(sample("#### 72.", "72", "a"), sample("99", "72", "a"), sample("99", "72", "b"))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
