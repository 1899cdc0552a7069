"""Stand-ins for the servers that hold weights: vLLM's and SGLang's routes as their sources have them (0.33, 0.5.23)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rmkit.serve.backends import model as backend

Rows = list[list[float]]


class Holder(httpx.BaseTransport):
    """`outputs` gives [T][A] raw numbers at all tokens of a text; the rest are faults of servers and of their flags."""

    def __init__(self, outputs: Callable[[list[int]], Rows]) -> None:
        self.outputs = outputs
        self.squash = False  # a sigmoid over what is asked for raw
        self.status = 200
        self.step_id: int | None = None  # vLLM's step pooling: rows only at this token
        self.info: dict[str, Any] = {"disable_radix_cache": True, "chunked_prefill_size": -1}
        self.bodies: list[dict[str, Any]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/server_info":
            return httpx.Response(200, json=self.info)
        body = json.loads(request.read())
        self.bodies.append(body)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "busy"}})
        if "input_ids" in body:
            assert request.url.path == "/classify"
            return httpx.Response(200, json=self._sglang(body))
        rows = [self._vllm(request.url.path, body, ids) | {"index": at} for at, ids in enumerate(body["input"])]
        return httpx.Response(200, json={"data": rows[::-1]})  # in any order

    def _vllm(self, path: str, body: dict[str, Any], ids: list[int]) -> dict[str, Any]:
        raw = not self.squash and body["use_activation"] is False
        rows = [[x if raw else 1 / (1 + math.exp(-x)) for x in row] for row in self.outputs(ids)]
        if path == "/classify":
            return {"probs": rows[-1], "num_classes": len(rows[-1])}
        assert (path, body["task"]) == ("/pooling", "token_classify")
        return {"data": [row for row, one in zip(rows, ids, strict=True) if self.step_id in (None, one)]}

    def _sglang(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        places = body.get("token_indices_to_pool")
        answers: list[Any] = []
        for at, ids in enumerate(body["input_ids"]):
            rows = self.outputs(ids)
            answers.append(rows[-1] if places is None else [rows[place] for place in places[at]])
        return [{"embedding": one, "meta_info": {}} for one in answers]


def hold(monkeypatch: pytest.MonkeyPatch, outputs: Callable[[list[int]], Rows]) -> Holder:
    """A holder behind every URL that a backend is connected to."""
    holder, real = Holder(outputs), httpx.Client
    monkeypatch.setattr(backend.httpx, "Client", lambda **more: real(transport=holder, **more))
    return holder
