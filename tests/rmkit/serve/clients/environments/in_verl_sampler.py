"""Run in an environment with verl and TransferQueue: the service's URL in, JSON out. Groups go through verl's store;
the buffer is loaded by path, as the trainer loads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray
import torch
import transfer_queue as tq  # type: ignore[import-not-found]
from omegaconf import OmegaConf  # type: ignore[import-not-found]
from verl.utils.import_utils import load_module  # type: ignore[import-not-found]
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # type: ignore[import-not-found]

import rmkit.serve.clients
from rmkit.serve.clients.prompts import PromptClient
from rmkit.serve.clients.service_http import Patience

# by age; the sessions of the last failed. Sixteen each, for the book draws from its belief about a prompt.
GROUPS = {"u0": [1.0] * 16, "u1": [1.0, 0.0] * 8, "u2": [0.0] * 16, "u3": []}


def put(uid: str, step: int, rewards: list[float], *, raw: bool) -> None:
    """A group as verl's agent loop leaves it: its prompt's state, then its trajectories."""
    status = "finished" if rewards else "failure"
    tq.kv_batch_put(
        keys=[uid], partition_id="train", tags=[{"is_prompt": True, "status": status, "global_steps": step}]
    )
    if not rewards:
        return
    rows = [
        {
            "prompts": torch.tensor([5, 6]),
            "responses": torch.tensor([7, 8]),
            "rm_scores": torch.tensor([0.0, -9.0 if raw else one]),
            "extra_info": {"index": int(uid[1:])},
            "extra_fields": {"reward_extra_info": {"rmkit_raw": one} if raw else {}},
        }
        for one in rewards
    ]
    tq.kv_batch_put(
        keys=[f"{uid}_{at}_0" for at in range(len(rows))],
        partition_id="train",
        fields=list_of_dict_to_tensordict(rows),
        tags=[{"status": "success", "global_steps": step}] * len(rows),
    )


def main(url: str) -> None:
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    tq.init()
    result: dict[str, object] = {}
    for name, mode in (("PromptBookBuffer", "sync"), ("PromptBookBufferAsync", "separate_async")):
        path = Path(rmkit.serve.clients.__file__).with_name("verl_sampler.py")
        kind = getattr(load_module(str(path)), name)
        buffer = kind(
            trainer_mode=mode,
            trainer_config=OmegaConf.create({}),
            max_off_policy_threshold=None,
            max_off_policy_strategy="drop",
            sampler_kwargs=OmegaConf.create({"url": url, "book": mode}),
            poll_interval=0.1,
            refill_fn=lambda n: None,
        )
        for step, (uid, rewards) in enumerate(GROUPS.items()):
            if rewards or mode == "sync":  # the asynchronous buffer replaces failed groups itself
                put(uid, step, rewards, raw=mode == "sync")
        order = []
        for _ in range(3):
            batch, _ = buffer.sample(5, "train", 1)
            order.append([*sorted({key.split("_")[0] for key in batch.keys}), len(batch.keys)])
            tq.kv_clear(partition_id="train", keys=list(batch.keys))
        result[mode] = order
        tq.kv_clear(partition_id="train", keys=["u3"])
        buffer._client = PromptClient("http://127.0.0.1:9", patience=Patience(attempts=1))
        for step, uid in enumerate(("u4", "u5")):
            put(uid, step, [1.0 - step, 0.0], raw=True)
        batch, _ = buffer.sample(5, "train", 1)
        result[f"{mode} without a book"] = sorted(batch.keys)
        tq.kv_clear(partition_id="train", keys=["u4", "u5", *(f"u{group}_{at}_0" for group in (4, 5) for at in (0, 1))])
    print(json.dumps(result))
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
