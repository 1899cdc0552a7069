"""vLLM (0.33) as the holder of weights: /classify for one row of numbers a text, /pooling for rows at steps.

    vllm serve MODEL                                            a classifier of texts or of tokens
    vllm serve MODEL --hf-overrides '{"architectures": ["...ForSequenceClassification"], "method":
        "no_post_processing", "classifier_from_token": ["+", "-"]}' --pooler-config '{"task": "token_classify"}'
                                                                a language model that is read at listed tokens

A token classifier answers for every token of a text; one that is served with step pooling, as vLLM does on its own for
`Qwen2ForProcessRewardModel`, only for those that mark a step. Both are understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from rmkit.models.transformer.packing import Ids


class VllmServer:
    """`in_steps` says whether numbers are read at every step of a text or once, at its end."""

    def __init__(self, client: httpx.Client, *, in_steps: bool) -> None:
        self._client = client
        self.in_steps = in_steps

    def check(self) -> None:
        """Nothing that golden scores would not show can be wrong with the server."""

    def rows(self, ids: Sequence[Ids], reads: Sequence[Ids]) -> list[list[list[float]]]:
        """[B][S] the raw outputs of the head at the tokens read of each text. Raises httpx.HTTPError, ValueError."""
        if not self.in_steps:
            return [[row["probs"]] for row in self._asked("/classify", ids)]
        answers = self._asked("/pooling", ids, task="token_classify")
        return [_picked(row["data"], one, read) for row, one, read in zip(answers, ids, reads, strict=True)]

    def _asked(self, path: str, ids: Sequence[Ids], **more: Any) -> list[dict[str, Any]]:
        answer = self._client.post(path, json={"input": [list(one) for one in ids], "use_activation": False, **more})
        answer.raise_for_status()
        return sorted(answer.json()["data"], key=lambda row: row["index"])


def _picked(rows: list[list[float]], ids: Ids, read: Ids) -> list[list[float]]:
    """The rows at the tokens read, of rows at all tokens or at just these."""
    if len(rows) == len(ids):
        return [rows[at] for at in read]
    if len(rows) != len(read):
        raise ValueError(f"{len(rows)} rows of numbers for {len(ids)} tokens with {len(read)} steps")
    return rows
