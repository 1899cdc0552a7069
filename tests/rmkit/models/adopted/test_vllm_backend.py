"""Adopted models whose weights sit in another server: a stand-in for vLLM's /classify, numpy as the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fastapi")

from rmkit.errors import ModelError  # noqa: E402
from rmkit.models.adopted.adopt import adopt  # noqa: E402
from rmkit.serve import vllm_backend  # noqa: E402
from rmkit.serve.vllm_backend import VllmModel  # noqa: E402
from tests.rmkit.models.adopted import fakes as made  # noqa: E402
from tests.rmkit.models.adopted.test_readers import TEXTS, item  # noqa: E402

HEADS = {"scalar": "score", "beaver-cost": "score_head", "openrlhf": "score"}


class Classifier(httpx.BaseTransport):
    """The head's raw outputs at the last token of every text, in any order."""

    def __init__(self, fake: made.Fake, head: str) -> None:
        self.fake, self.head = fake, head
        self.factor = 1.0
        self.asked: list[list[int]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.read())
        assert request.url.path == "/classify"
        assert asked["use_activation"] is False
        self.asked += asked["input"]
        rows = [{"index": at, "probs": [self.factor * self.number(ids)]} for at, ids in enumerate(asked["input"])]
        return httpx.Response(200, json={"data": rows[::-1]})

    def number(self, ids: list[int]) -> float:
        tensors = {name: one.double().numpy() for name, one in self.fake.tensors.items()}
        with torch.no_grad():
            states = self.fake.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()
        return float(made.linear(states[-1], tensors, self.head)[0])


def behind(fake: made.Fake, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    server = Classifier(fake, HEADS.get(fake.name, "score"))
    real = httpx.Client
    monkeypatch.setattr(vllm_backend.httpx, "Client", lambda **more: real(transport=server, **more))
    return server


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_server_gives_the_oracle_s_numbers(
    fakes: dict[str, made.Fake],
    name: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = fakes[name]
    adoption = adopt(fake.folder, output=tmp_path / "model", **fake.adopt)
    server = behind(fake, monkeypatch)
    model = VllmModel.connect(str(adoption.path), "http://vllm:8000")
    scores = model.score([item(*text) for text in TEXTS])
    for [score], text in zip(scores, TEXTS, strict=True):
        assert score.value == pytest.approx(float(fake.expected(*text)), abs=1e-5)
    server.factor = 1.01
    with pytest.raises(ModelError, match="golden score differs"):
        VllmModel.connect(str(adoption.path), "http://vllm:8000")


@pytest.mark.slow
def test_ids_behind_the_token_read_are_not_sent(
    fakes: dict[str, made.Fake],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = fakes["scalar"]
    tables: dict[str, Any] = {
        "read": {"kind": "column", "at": {"last": made.VOCABULARY["<|a|>"]}},
        "head": {"linear": "score"},
    }
    adoption = adopt(fake.folder, tables=tables, output=tmp_path / "model")
    server = behind(fake, monkeypatch)
    model = VllmModel.connect(str(adoption.path), "http://vllm:8000")
    server.asked.clear()
    [[first, second]] = model.score([item("the sky is", "blue", "two plus two")])
    assert first.value == second.value  # read at the header, before either answer
    assert {ids[-1] for ids in server.asked} == {made.VOCABULARY["<|a|>"]}
    steps = adopt(fakes["math-shepherd"].folder, output=tmp_path / "steps", **fakes["math-shepherd"].adopt)
    with pytest.raises(ModelError, match=r"read by token at every step, so serve it without --backend"):
        VllmModel.connect(str(steps.path), "http://vllm:8000")
