"""SGLang (0.5.23) as the holder of weights: its native /classify, which gives raw outputs of the head.

    python -m sglang.launch_server --model-path MODEL --is-embedding --dtype float32
        for steps also: --disable-radix-cache --chunked-prefill-size -1 --json-model-override-args
        '{"architectures": ["Qwen3ForSequenceClassification"]}'                       (or Qwen2)

Steps are read by `token_indices_to_pool`. SGLang counts these places from where its cache of prompts or the last chunk
ends, so a server with either would read other tokens as soon as two texts begin alike, though the first golden scores
agree; and one that shortens long texts by itself gives scores of other texts. Both are refused by what /server_info
says.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from rmkit.errors import ModelError
from rmkit.models.transformer.packing import Ids


class SglangServer:
    """`in_steps` says whether numbers are read at every step of a text or once, at its end."""

    def __init__(self, client: httpx.Client, *, in_steps: bool) -> None:
        self._client = client
        self.in_steps = in_steps

    def check(self) -> None:
        """Raises ModelError where the server was started so that it may read other tokens or other texts."""
        answer = self._client.get("/server_info")
        answer.raise_for_status()
        info = answer.json()
        wrong = ["without --allow-auto-truncate"] if info.get("allow_auto_truncate") else []
        if self.in_steps and info.get("disable_radix_cache") is not True:
            wrong.append("with --disable-radix-cache")
        if self.in_steps and info.get("chunked_prefill_size") != -1:
            wrong.append("with --chunked-prefill-size -1")
        if wrong:
            raise ModelError(f"the SGLang server must be started {' and '.join(wrong)}, or it gives other scores")

    def rows(self, ids: Sequence[Ids], reads: Sequence[Ids]) -> list[list[list[float]]]:
        """[B][S] the raw outputs of the head at the tokens read of each text. Raises httpx.HTTPError, ValueError."""
        places = {"token_indices_to_pool": [list(read) for read in reads]} if self.in_steps else {}
        answer = self._client.post("/classify", json={"input_ids": [list(one) for one in ids], **places})
        answer.raise_for_status()
        outputs = [one["embedding"] for one in answer.json()]
        return outputs if self.in_steps else [[output] for output in outputs]
