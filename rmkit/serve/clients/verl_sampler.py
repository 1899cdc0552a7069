"""verl's replay buffer (0.9, V1 trainers) with a prompt book: which of the groups that are ready is trained on next.

    trainer.v1.sampler.custom_sampler.path=.../rmkit/serve/clients/verl_sampler.py
    trainer.v1.sampler.custom_sampler.name=PromptBookBuffer          # PromptBookBufferAsync for the asynchronous modes
    +trainer.v1.sampler.sampler_kwargs.url=http://HOST:PORT  +trainer.v1.sampler.sampler_kwargs.book=run-7
    +trainer.v1.sampler.sampler_kwargs.prompt=extra_info.index  +trainer.v1.sampler.sampler_kwargs.utility=variance

`prompt` says where a prompt's id stands among the dataset's fields. Every finished group is observed once: its rewards
are `rmkit_raw` of our reward manager, else the sum of what verl holds. Then the book puts the groups in order, and verl
takes as many as it asked for; what it proposes for none of them goes by age, as verl does. A book that does not answer
changes nothing but the order. verl chooses after generation here; what to generate at all is its dataset's affair.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import transfer_queue as tq  # type: ignore[import-not-found]
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync  # type: ignore[import-not-found]

from rmkit.errors import DataError
from rmkit.serve.clients.prompts import PromptClient
from rmkit.serve.clients.service_http import RewardServiceError
from rmkit.signal.columns import value_at

log = logging.getLogger(__name__)

_RAW = "extra_fields.reward_extra_info.rmkit_raw"


class _Booked:
    """What both buffers do before verl's own choice. A key of verl's store begins with its group's uid."""

    def __init__(self, *args: Any, sampler_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, sampler_kwargs=sampler_kwargs, **kwargs)  # type: ignore[call-arg]
        settings = dict(sampler_kwargs or {})
        self._prompt = str(settings.pop("prompt", "extra_info.index"))
        self._proposal = {"utility": settings.pop("utility", "variance")}
        self._client = PromptClient(**settings)
        self._known: dict[str, str] = {}  # the prompt of each observed group that verl still holds

    def _select_prompt_uids(
        self, partition_id: str, sampleable_keys: set[str], batch_size: int
    ) -> tuple[list[str], dict[str, dict[str, Any]], dict[str, int]]:
        """verl's answer with other groups: the `batch_size` that the book proposes first."""
        by_age, partition, steps = super()._select_prompt_uids(  # type: ignore[misc]
            partition_id, sampleable_keys, len(sampleable_keys)
        )
        if partition_id == "val":
            return by_age[:batch_size], partition, steps
        self._known = {uid: prompt for uid, prompt in self._known.items() if uid in sampleable_keys}
        try:
            self._observe(partition_id, partition, sampleable_keys - self._known.keys())
            proposed = self._client.propose(len(self._known), among=sorted(set(self._known.values())), **self._proposal)
        except RewardServiceError as error:
            log.warning("groups go by their age, for the prompt book does not answer: %s", error)
            return by_age[:batch_size], partition, steps
        places = {one["prompt"]: place for place, one in enumerate(proposed)}
        by_book = sorted(by_age, key=lambda uid: places.get(self._known.get(uid, ""), len(places)))
        return by_book[:batch_size], partition, steps

    def _observe(self, partition_id: str, partition: Mapping[str, Any], uids: Collection[str]) -> None:
        """Tell the book of these groups; one without trajectories (all of its sessions failed) has nothing to tell."""
        keys = [key for key in partition if key.split("_")[0] in uids]
        if not keys:
            return
        root = self._prompt.split(".")[0]
        data = tq.kv_batch_get(
            keys=keys, partition_id=partition_id, select_fields=list({root, "rm_scores", "extra_fields"})
        )
        columns = {name: list(data[name]) for name in (root, "rm_scores", "extra_fields")}
        groups: dict[str, dict[str, Any]] = defaultdict(lambda: {"prompt": "", "rewards": []})
        for at, key in enumerate(keys):
            row = {name: getattr(values[at], "data", values[at]) for name, values in columns.items()}
            prompt = value_at(row, self._prompt)
            if prompt is None:
                raise DataError(
                    f"the dataset's fields hold no {self._prompt}; name a prompt's id by sampler_kwargs.prompt"
                )
            group = groups[key.split("_")[0]]
            group["prompt"] = str(prompt)
            raw = value_at(row, _RAW)
            value = float(columns["rm_scores"][at].sum() if raw is None else raw)
            group["rewards"].append(value if math.isfinite(value) else None)
        for (
            uid,
            group,
        ) in groups.items():  # the uid names the request, so that a group counts once, whatever is repeated
            self._client.observe([group], request_id=uid)
            self._known[uid] = group["prompt"]


class PromptBookBuffer(_Booked, ReplayBuffer):  # type: ignore[misc]
    """For `trainer_mode=sync`."""


class PromptBookBufferAsync(_Booked, ReplayBufferAsync):  # type: ignore[misc]
    """For the asynchronous trainer modes."""
